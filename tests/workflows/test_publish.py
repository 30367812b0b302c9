"""A bundle that was downloaded gives what the repository gives."""

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from bundle_runs import BUNDLES, ROOT, assert_done, assert_same, outputs, run_bundle
from monai.bundle import download

from ci.pack_bundle import pack


def size(bundle):
    return sum(path.stat().st_size for path in (ROOT / "bundles" / bundle / "demo").rglob("*") if path.is_file())


@pytest.fixture
def address(tmp_path):
    """Serve a folder over HTTP on this machine alone, and return where."""
    (tmp_path / "dist").mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "dist")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
def test_a_downloaded_bundle_gives_the_repositorys_results(address, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    bundle = min((name for name in BUNDLES if outputs(name)), key=size)
    archive = Path(pack(bundle, str(tmp_path / "dist")))
    download(name=bundle, bundle_dir=tmp_path / "models", url=f"{address}/{archive.name}", progress=False)
    assert_done(run_bundle(bundle, "inference", output_dir=tmp_path / "ours"))
    root = tmp_path / "models" / bundle
    assert_done(run_bundle(bundle, "inference", root=root, cwd=root, output_dir=tmp_path / "theirs"))
    assert_same(bundle, tmp_path / "ours", tmp_path / "theirs")

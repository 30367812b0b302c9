import shutil
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from common import paths

ROOT = Path(__file__).parents[1]


def bundle_root_of_a_copy_in(folder):
    """Copy the module into a package ``common`` of a folder, and return its function."""
    package = folder / "common"
    package.mkdir(parents=True)
    spec = spec_from_file_location("copied_paths", shutil.copy(paths.__file__, package))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.bundle_root


def test_in_the_repository_a_bundle_lies_in_bundles():
    assert paths.bundle_root("some_bundle") == str(ROOT / "bundles" / "some_bundle")


def test_a_clone_answers_with_its_own_bundles(tmp_path):
    assert bundle_root_of_a_copy_in(tmp_path / "clone")("some_bundle") == str(
        tmp_path / "clone" / "bundles" / "some_bundle"
    )


def test_packed_into_a_bundle_it_answers_with_that_bundle(tmp_path):
    assert bundle_root_of_a_copy_in(tmp_path / "x" / "scripts")("some_bundle") == str(tmp_path / "x")


def test_a_packed_bundle_may_have_any_name(tmp_path):
    folder = tmp_path / "bundle v1.0 für Anna"
    assert bundle_root_of_a_copy_in(folder / "scripts")("some_bundle") == str(folder)


@pytest.mark.parametrize("layout", [".", "scripts"])
def test_the_working_directory_does_not_matter(tmp_path, monkeypatch, layout):
    bundle_root = bundle_root_of_a_copy_in(tmp_path / layout)
    before = bundle_root("some_bundle")
    monkeypatch.chdir(tmp_path.parent)
    assert bundle_root("some_bundle") == before


def test_bundles_of_a_folder_are_known_by_their_metadata(tmp_path):
    for name in ("second", "first"):
        (tmp_path / name / "configs").mkdir(parents=True)
        (tmp_path / name / "configs" / "metadata.json").touch()
    (tmp_path / "none").mkdir()
    found = paths.bundles_in(tmp_path)
    assert list(found.items()) == [(name, tmp_path / name) for name in ("first", "second")]
    assert paths.bundle_named("second", found) == tmp_path / "second"
    with pytest.raises(FileNotFoundError, match="there is no bundle none; there are first, second"):
        paths.bundle_named("none", found)

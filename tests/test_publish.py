"""What would be published is the unpacked archive, and nothing is sent without an owner or the hub's package."""

import hashlib

import pytest
from bundle_runs import BUNDLES

from ci import ROOT, publish
from ci.pack_bundle import contents
from ci.zoo import metadata_of

BUNDLE = BUNDLES[0]
ROOT_OF_BUNDLE = ROOT / "bundles" / BUNDLE


@pytest.fixture(scope="module")
def printed():
    """Return what a run says that sends nothing."""
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda *words, sep=" ", **_: lines.append(sep.join(map(str, words))))
        publish.publish(BUNDLE, owner="someone", dry_run=True)
    return "\n".join(lines)


def test_repository_and_tag_are_the_published_name_and_the_version(printed):
    metadata = metadata_of(ROOT_OF_BUNDLE)
    assert f"repository someone/{metadata['published_name']}, private" in printed
    assert f"tag {metadata['version']}" in printed


def test_files_are_those_of_the_archive_and_the_card_at_the_root(printed):
    tree = printed.partition(" bytes in ")[0].splitlines()[:-1]
    named = {line.split()[1] for line in tree if line.startswith(" ")}
    assert named == {*contents(ROOT_OF_BUNDLE), "README.md"}


def test_the_card_has_front_matter(printed):
    title = (ROOT_OF_BUNDLE / "docs" / "README.md").read_text().splitlines()[0]
    front = "---\ntags:\n- monai\n- medical\nlibrary_name: monai\nlicense: apache-2.0\n---\n"
    assert f"README.md:\n{front}{title}\n" in printed


def test_entries_of_large_files_have_address_and_hash(printed):
    metadata = metadata_of(ROOT_OF_BUNDLE)
    address = f"https://huggingface.co/someone/{metadata['published_name']}/resolve/{metadata['version']}"
    sha256 = hashlib.sha256((ROOT_OF_BUNDLE / "models" / "model.pt").read_bytes()).hexdigest()
    entry = f'path: "models/model.pt"\n    url: "{address}/models/model.pt"\n    hash_val: "{sha256}"'
    assert entry in printed.partition("large_files:\n")[2]


def test_links_of_the_card_lead_from_the_root_to_the_docs():
    address = "https://huggingface.co/someone/x/resolve/1.0"
    text = "[a](study.md) ![b](b.png) [c](https://example.org) [d](#data)"
    expected = f"[a]({address}/docs/study.md) ![b]({address}/docs/b.png) [c](https://example.org) [d](#data)"
    assert publish.with_addresses(text, f"{address}/docs") == expected


def test_without_an_owner_nothing_is_sent(monkeypatch):
    monkeypatch.setattr(publish, "find_spec", lambda name: name)
    with pytest.raises(ValueError, match="expected --owner"):
        publish.publish(BUNDLE)


def test_without_the_package_of_the_hub_a_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(publish, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"huggingface_hub is not installed: pip install -e \.\[publish\]"):
        publish.publish(BUNDLE, owner="someone")

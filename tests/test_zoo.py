"""Archives are what the model zoo asks for, and what it would refuse is named."""

import json
import re
import shutil

import pytest
from bundle_runs import BUNDLES

from ci import ROOT, verify_bundle, zoo
from ci.pack_bundle import contents
from ci.recipes import recipe_of

SCRIPTED = [name for name in BUNDLES if not recipe_of(name).no_torchscript]
NOT_SCRIPTED = [name for name in BUNDLES if recipe_of(name).no_torchscript]
CARD = "\n\n".join(f"## {name}" for name in zoo.SECTIONS)
bundles = pytest.mark.parametrize("bundle", BUNDLES)


@pytest.fixture
def unpacked(tmp_path):
    """Return the folder that a bundle's archive unpacks to."""

    def unpack(bundle):
        for name, content in contents(ROOT / "bundles" / bundle).items():
            path = tmp_path / bundle / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return tmp_path / bundle

    return unpack


@pytest.fixture
def root(unpacked):
    return unpacked(BUNDLES[0])


@bundles
def test_an_archive_keeps_the_rules_of_files_and_metadata(bundle, unpacked):
    root = unpacked(bundle)
    rules = (zoo.check_sizes, zoo.check_json, zoo.check_texts, zoo.check_name, zoo.check_packages)
    for rule in (*rules, zoo.check_card, zoo.check_tensorrt):
        rule(root)


def test_json_of_an_archive_says_what_the_repositorys_says(root):
    for path in (root / "configs").glob("*.json"):
        text = (ROOT / "bundles" / root.name / "configs" / path.name).read_text()
        assert json.loads(path.read_text().replace('"scripts.common.', '"common.')) == json.loads(text)


@pytest.mark.slow
def test_python_of_an_archive_is_formatted_as_the_zoos(root):
    zoo.check_python(root)


@pytest.mark.slow
@pytest.mark.parametrize("bundle", SCRIPTED)
def test_a_network_is_exported_without_being_traced(bundle):
    zoo.export(ROOT / "bundles" / bundle)


@pytest.mark.slow
@pytest.mark.parametrize("bundle", NOT_SCRIPTED)
def test_a_network_that_is_not_exported_is_excluded_if_the_card_says_so(bundle, tmp_path):
    root = shutil.copytree(ROOT / "bundles" / bundle, tmp_path / bundle)
    (root / "docs" / "README.md").write_text("TorchScript and TensorRT are\nnot supported.")
    assert zoo.check_torchscript(root) == recipe_of(bundle).no_torchscript


def test_a_card_that_says_nothing_of_tensorrt_is_refused(root):
    (root / "docs" / "README.md").write_text("TensorRT is fast. Spheres are not supported.")
    with pytest.raises(ValueError, match=r'expected a sentence in the card, as "TensorRT is not supported\."'):
        zoo.check_tensorrt(root)


def test_a_large_file_that_holds_no_weights_is_refused(root):
    (root / "demo" / "large.nii.gz").write_bytes(bytes(zoo.MAX_FILE + 1))
    with pytest.raises(ValueError, match=r"demo/large\.nii\.gz"):
        zoo.check_sizes(root)


def test_a_large_file_without_a_hash_is_refused(root):
    (root / "large_files.yml").write_text("large_files:\n  - {path: models/paper/model.pt, url: https://example.org}\n")
    with pytest.raises(ValueError, match="expected an entry of path, url, hash_val, hash_type"):
        zoo.check_sizes(root)


def test_compact_json_is_refused(root):
    (root / "configs" / "train.json").write_text('{"a": [1, 2]}\n')
    with pytest.raises(ValueError, match=r"formatted otherwise: \['configs/train.json'\]"):
        zoo.check_json(root)


@pytest.mark.parametrize("text", ["a \nb\n", "a\r\nb\n", "a", "a\n\n"], ids=["blank", "return", "open", "empty line"])
def test_a_text_that_a_hook_would_change_is_refused(text, root):
    (root / "docs" / "study.md").write_text(text, newline="")
    with pytest.raises(ValueError, match=r"docs/study\.md"):
        zoo.check_texts(root)


def test_a_card_with_the_sections_in_order_passes_whatever_else_it_has(root):
    (root / "docs" / "README.md").write_text(CARD.replace("## Data", "## Use\n\n## Data\n\n### Task\n"))
    zoo.check_card(root)


@pytest.mark.parametrize(
    "card", [CARD.replace("## Citation\n", ""), "## References\n" + CARD], ids=["one is missing", "another order"]
)
def test_a_card_with_other_sections_is_refused(card, root):
    (root / "docs" / "README.md").write_text(card)
    with pytest.raises(ValueError, match="expected the sections Task, Authors, Data"):
        zoo.check_card(root)


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        (zoo.check_name, {"published_name": "brain_segmentation"}),
        (zoo.check_name, {"published_name": "brain_mr_ct_xray_synthetic"}),
        (zoo.check_packages, {"numpy_version": "1.0"}),
        (zoo.check_packages, {"required_packages_version": {"pandas": "1.0"}}),
    ],
    ids=["no data in the name", "no task in the name", "another version", "another package"],
)
def test_metadata_that_the_zoo_would_refuse_are_refused(rule, change, root):
    path = root / "configs" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=re.escape(str(next(iter(change.values()))))):
        rule(root)


@pytest.mark.parametrize("elsewhere", ["nothing/there", "a_copy"])
def test_only_a_bundle_of_the_repository_is_packed_to_be_verified(tmp_path, elsewhere):
    (tmp_path / "a_copy").mkdir()
    with pytest.raises(SystemExit, match=r"nothing is there|give bundles/NAME"):
        verify_bundle.verify(str(tmp_path / elsewhere), zoo=True)

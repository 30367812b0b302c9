import json

import pytest

from common.studies.folds import write_folds, write_healthy, write_shares

CASES = [f"c{n}" for n in range(12)]
HEALTHY = {"c2", "c7", "c11"}
OPTIONS = {"lists": ["one/dataset.json", "two/dataset.json"], "num_validation": 2}


@pytest.fixture
def livers(tmp_path):
    """Two lists of six cases each, whose files hold their names."""
    src = tmp_path / "src"
    for folder, cases in (("one", CASES[:6]), ("two", CASES[6:])):
        (src / folder).mkdir(parents=True)
        items = []
        for case in cases:
            item = {"image": f"{case}.nii.gz", "organ": f"{case}_liver.nii.gz", "case": case, "patient": case}
            item["image_label"] = int(case not in HEALTHY)
            for kind in ("image", "organ"):
                (src / folder / item[kind]).write_text(item[kind])
            items.append(item)
        content = {"training": items[2:], "validation": items[1:2], "testing": items[:1]}
        (src / folder / "dataset.json").write_text(json.dumps(content))
    return src


def written(src, dst, **options):
    write_folds(str(src), str(dst), **{**OPTIONS, **options})
    return json.loads((dst / "dataset.json").read_text())


def names(items):
    return {item["case"] for item in items}


def test_each_case_is_tried_once_and_never_learnt_from_in_its_fold(livers, tmp_path):
    tested = []
    for fold in range(3):
        content = written(livers, tmp_path / str(fold), fold=fold)
        parts = [names(content[part]) for part in ("training", "validation", "testing")]
        assert set().union(*parts) == set(CASES)
        assert sum(map(len, parts)) == len(CASES)
        assert len(parts[2] & HEALTHY) == 1  # those without lesions are dealt apart
        assert len(parts[1]) == 2
        assert not parts[1] & HEALTHY
        for item in content["testing"]:
            assert (tmp_path / str(fold) / item["organ"]).read_text() == f"{item['case']}_liver.nii.gz"
        tested += parts[2]
    assert sorted(tested) == sorted(CASES)


def test_without_folds_the_parts_are_those_of_the_lists(livers, tmp_path):
    content = written(livers, tmp_path / "dst")
    assert names(content["testing"]) == {"c0", "c6"}
    assert names(content["validation"]) == {"c1", "c7"}
    assert "site" not in content["training"][0]


def test_cases_of_no_site_may_be_given_one(livers, tmp_path):
    content = written(livers, tmp_path / "dst", site="NIH")
    assert {item["site"] for part in ("training", "validation", "testing") for item in content[part]} == {"NIH"}


def test_cases_to_test_may_be_named(livers, tmp_path):
    assert names(written(livers, tmp_path / "dst", tested=["c3", "c9"])["testing"]) == {"c3", "c9"}
    with pytest.raises(ValueError, match="has none named c99"):
        written(livers, tmp_path / "dst", tested=["c99"])
    with pytest.raises(ValueError, match="none is left"):
        written(livers, tmp_path / "dst", tested=CASES)


def test_phantoms_beside_them_are_learnt_from_alone(livers, tmp_path):
    phantoms = tmp_path / "dst" / "phantoms"
    phantoms.mkdir(parents=True)
    items = {part: [{"image": f"{part}.nii.gz", "case": part}] for part in ("training", "testing")}
    (phantoms / "dataset.json").write_text(json.dumps(items))
    content = written(livers, tmp_path / "dst", fold=0, beside="phantoms")
    assert content["training"][-1] == {"image": "phantoms/training.nii.gz", "case": "training"}
    assert names(content["testing"]) <= set(CASES)
    assert names(content["validation"]) <= set(CASES)


def test_each_site_has_about_its_share_in_each_part(livers, tmp_path):
    for name in OPTIONS["lists"]:
        content = json.loads((livers / name).read_text())
        content["modality"] = {"0": "t1"}
        for part in ("training", "validation", "testing"):
            for item in content[part]:
                item["site"] = "north" if item["case"] in ("c0", "c3", "c6", "c10", "c11") else "south"
        (livers / name).write_text(json.dumps(content))
    write_shares(str(livers), str(tmp_path / "dst"), OPTIONS["lists"], [5, 1, 4], left_out=["c4", "c5"])
    content = json.loads((tmp_path / "dst" / "dataset.json").read_text())
    counts = {part: [item["site"] for item in content[part]] for part in ("training", "validation", "testing")}
    assert [len(sites) for sites in counts.values()] == [5, 1, 4]
    assert counts["training"].count("north") in (2, 3)
    assert counts["testing"].count("north") == 2
    assert names([*content["training"], *content["validation"], *content["testing"]]) == set(CASES) - {"c4", "c5"}
    assert content["modality"] == {"0": "t1"}
    assert (tmp_path / "dst" / content["testing"][0]["image"]).read_text() == content["testing"][0]["image"]
    with pytest.raises(ValueError, match="none is left"):
        write_shares(str(livers), str(tmp_path / "no"), OPTIONS["lists"], [5, 1, 4], left_out=CASES)


def test_of_healthy_people_alone_is_learnt(tmp_path):
    for folder, letter, images in (("well", "w", ["t1"]), ("ill", "i", ["t2", "t1"])):
        parts = {"training": [], "validation": [], "testing": []}
        (tmp_path / folder).mkdir()
        for number, items in enumerate(parts.values()):
            case = f"{letter}{number}"
            files = [f"{case}_{name}.nii.gz" for name in images]
            for name in files:
                (tmp_path / folder / name).write_text(name)
            items.append(
                {"image": files if len(files) > 1 else files[0], "case": case, "image_label": int(letter == "i")}
            )
        (tmp_path / folder / "dataset.json").write_text(json.dumps(parts))
    lists = (["well/dataset.json"], ["ill/dataset.json"])
    write_healthy(str(tmp_path), str(tmp_path / "dst"), *lists, sequence="t1")
    content = json.loads((tmp_path / "dst" / "dataset.json").read_text())
    assert [names(content[part]) for part in parts] == [{"w0"}, {"w1", "i1"}, {"w2", "i2", "i0"}]
    assert content["testing"][-1]["image"] == "i0_t1.nii.gz"
    assert content["modality"] == {"0": "t1"}
    with pytest.raises(ValueError, match="an image of w0 whose name ends with t2"):
        write_healthy(str(tmp_path), str(tmp_path / "no"), *lists, sequence="t2")

import json
import subprocess
import sys
from pathlib import Path

import pytest

from common.data.cases import list_cases
from common.data.listing import found_items
from common.data.sites import cases_of_split, items_of_bids, items_of_table, redraw, split_within_cells, write_sites

HEADER = "image,site,image_label,patient,split\n"


def item(patient, site, label, number=0):
    case = f"{patient}_{number}"
    return {"image": f"{case}.nii.gz", "case": case, "patient": patient, "site": site, "image_label": label}


ITEMS = [item(f"a{i}", "A", i % 2, n) for i in range(20) for n in range(2)] + [item(f"b{i}", "B", 0) for i in range(10)]


def counts(parts):
    """Return how many patients of each site and class there are in each part."""
    return {
        part: {cell: len({i["patient"] for i in own if (i["site"], i["image_label"]) == cell}) for cell in CELLS}
        for part, own in parts.items()
    }


CELLS = [("A", 0), ("A", 1), ("B", 0)]


def test_a_table_has_an_item_a_row(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text(HEADER + "x/a.nii.gz,S1,1,p,testing\nb.nii.gz,S2,0,q,training\n")
    first, _ = items_of_table(table)
    assert first == {
        "image": str(tmp_path / "x/a.nii.gz"),
        "site": "S1",
        "image_label": 1,
        "patient": "p",
        "split": "testing",
    }
    assert [i["case"] for i in found_items(table, "training", "mr", None)] == ["b"]
    table.write_text("image,site,image_label,patient\na.nii.gz,S1,1,p\n")
    assert len(found_items(table, "training", "mr", None)) == len(found_items(table, "testing", "mr", None)) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("image,site\na,b\n", "expected columns image, site, image_label, patient, got none of image_label, patient"),
        (HEADER + "a,S1,sick,p,\n", "line 2: .* got class 'sick'"),
        (HEADER + "a,S1,1,p,\nb,,1,p,\n", "line 3: .* got no site"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path, content, reason):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(ValueError, match=reason):
        items_of_table(tmp_path / "t.csv")


def bids(folder):
    """Write a data set of three participants, one of another group, one with two sessions."""
    (folder / "participants.tsv").write_text(
        "participant_id\tcentre\tgroup\nsub-1\tBasel\tpatient\nsub-2\tBern\tcontrol\nsub-3\tBern\tother\n"
    )
    for name in ("sub-1/ses-1/anat/sub-1_ses-1_T1w.nii.gz", "sub-1/ses-2/anat/sub-1_ses-2_T1w.nii.gz"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).touch()
    for name in ("sub-2/anat/sub-2_T1w.nii.gz", "sub-2/anat/sub-2_FLAIR.nii.gz", "sub-3/anat/sub-3_T1w.nii.gz"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_bids_has_an_item_a_session(tmp_path):
    items = items_of_bids(bids(tmp_path), "centre", "group", ["control", "patient"])
    assert [(i["case"], i["patient"], i["site"], i["image_label"]) for i in items] == [
        ("sub-1_ses-1_T1w", "sub-1", "Basel", 1),
        ("sub-1_ses-2_T1w", "sub-1", "Basel", 1),
        ("sub-2_T1w", "sub-2", "Bern", 0),
    ]
    with pytest.raises(ValueError, match="expected a column 'site', got participant_id, centre, group"):
        items_of_bids(tmp_path, "site", "group", ["control"])
    with pytest.raises(FileNotFoundError, match="whose group is one of healthy, got none"):
        items_of_bids(tmp_path, "centre", "group", ["healthy"])


def test_each_site_and_class_is_split_by_patient():
    parts = split_within_cells(ITEMS, (0.6, 0.2, 0.2))
    assert counts(parts) == {
        "training": dict.fromkeys(CELLS, 6),
        "validation": dict.fromkeys(CELLS, 2),
        "testing": dict.fromkeys(CELLS, 2),
    }
    where = {part: {i["patient"] for i in own} for part, own in parts.items()}
    assert not where["training"] & where["testing"]
    assert sum(map(len, parts.values())) == len(ITEMS)
    assert split_within_cells(ITEMS, (0.6, 0.2, 0.2)) == parts
    assert split_within_cells(ITEMS, (0.6, 0.2, 0.2), seed=1) != parts
    with pytest.raises(ValueError, match="fractions must be three numbers"):
        split_within_cells(ITEMS, (0.6, 0.2))


def test_other_parts_are_as_large_in_each_site_and_class():
    parts = split_within_cells(ITEMS, (0.5, 0.2, 0.3))
    other = redraw(parts, 3)
    assert counts(other) == counts(parts)
    assert other["testing"] != parts["testing"]
    assert redraw(parts, 3) == other


def test_cases_are_those_of_the_data_set_or_drawn_anew():
    parts = split_within_cells(ITEMS, (0.8, 0, 0.2))

    def listing(split, progress):
        if not parts[split]:
            raise FileNotFoundError("expected validation cases, got none")
        return parts[split]

    assert cases_of_split(listing, "testing") == parts["testing"]
    assert cases_of_split(listing, "testing", 5) == redraw(parts, 5)["testing"]
    with pytest.raises(FileNotFoundError, match="validation"):
        cases_of_split(listing, "validation", 5)


def test_a_data_set_is_written_whose_files_stay_where_they_are(tmp_path, capsys):
    (tmp_path / "bids").mkdir()
    out = tmp_path / "out"
    options = {"site_column": "centre", "classes": ("control", "patient"), "fractions": (0, 0, 1)}
    write_sites(str(bids(tmp_path / "bids")), str(out), **options)
    content = json.loads((out / "dataset.json").read_text())
    assert [len(content[part]) for part in ("training", "validation", "testing")] == [0, 0, 3]
    assert all(Path(i["image"]).is_file() for i in content["testing"])
    assert "testing: 3 images; patients of each site and class: {'Basel 1': 1, 'Bern 0': 1}" in capsys.readouterr().out
    assert len(list_cases(str(out), modality="mr", sequences=None, check=False)) == 3


def test_it_is_a_command(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text(HEADER + "a.nii.gz,S1,1,p,testing\nb.nii.gz,S2,0,q,training\n")
    command = [sys.executable, "-m", "common.data.sites", "--src", str(table), "--dst", str(tmp_path / "out")]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
    content = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert [len(content[part]) for part in ("training", "validation", "testing")] == [1, 0, 1]

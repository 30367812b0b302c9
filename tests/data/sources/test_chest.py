import numpy as np
import pytest
from downloads import COLUMNS, film, write_chexpert, write_nih
from PIL import Image

from common.data.checks import BadFileError
from common.data.sources.chest import find_chexpert, find_nih

HEALTHY, DISEASED = {"No Finding": "1.0"}, {"No Finding": "", "Pleural Effusion": "1.0"}
FILMS = {
    "patient00001/study1/view1_frontal.jpg": HEALTHY,
    "patient00002/study2/view1_frontal.jpg": DISEASED,
    "patient00002/study1/view1_frontal.jpg": HEALTHY,
    "patient00002/study1/view2_lateral.jpg": HEALTHY,
    "patient00003/study1/view1_frontal.jpg": {"Pleural Effusion": "-1.0"},
    "patient00004/study1/view1_frontal.jpg": {"No Finding": "0.0", "Pleural Effusion": "0.0", "Edema": "1.0"},
    "patient00005/study1/view1_frontal.jpg": {},
    "patient00006/study1/view1_frontal.jpg": HEALTHY | DISEASED | HEALTHY,
}


def find(src, finding="Pleural Effusion"):
    return find_chexpert(src, finding)


def labels(scans):
    return {scan.case: scan.read().image_label for scan in scans}


def test_only_frontal_films_that_are_marked_1_are_taken(tmp_path):
    assert labels(find(write_chexpert(tmp_path, FILMS))) == {
        "patient00001_study1_view1_frontal": 0,
        "patient00002_study1_view1_frontal": 0,
        "patient00002_study2_view1_frontal": 1,
    }


@pytest.mark.parametrize(
    "counted",
    [
        "1 films are left out, as lateral views.",
        "1 films are left out, as uncertain (-1) in No Finding or Pleural Effusion.",
        "2 films are left out, as neither No Finding nor Pleural Effusion is marked.",
        "1 films are left out, as both No Finding and Pleural Effusion are marked.",
        "contradictory marks are those of patient00006_study1_view1_frontal.",
    ],
)
def test_films_that_are_left_out_are_counted(tmp_path, caplog, counted):
    caplog.set_level("INFO")
    find(write_chexpert(tmp_path, FILMS))
    assert counted in caplog.text


def test_another_finding_makes_other_films_diseased(tmp_path):
    cases = labels(find(write_chexpert(tmp_path, FILMS), "Edema"))
    assert [case[:12] for case, label in cases.items() if label] == ["patient00004"]


def test_a_finding_that_is_uncertain_leaves_a_healthy_film_out(tmp_path):
    films = {"patient00001/study1/view1_frontal.jpg": {"No Finding": "1.0", "Pleural Effusion": "-1.0"}}
    with pytest.raises(FileNotFoundError, match="frontal films of No Finding or Pleural Effusion, got none there"):
        find(write_chexpert(tmp_path, films))


def test_films_have_their_patients(tmp_path):
    patients = [scan.patient for scan in find(write_chexpert(tmp_path, FILMS))]
    assert patients == ["patient00001", "patient00002", "patient00002"]


@pytest.mark.parametrize("name", ["CheXpert-v1.0-small", "CheXpert-v1.0", "data/März 1"])
def test_what_paths_begin_with_does_not_matter(tmp_path, name):
    assert len(find(write_chexpert(tmp_path, FILMS, name=name))) == 3


def test_the_folder_around_the_data_set_will_do(tmp_path):
    write_chexpert(tmp_path / "CheXpert-v1.0-small", FILMS)
    assert len(find(tmp_path)) == 3


def test_both_tables_are_read(tmp_path):
    write_chexpert(tmp_path, FILMS)
    write_chexpert(tmp_path, {"patient64541/study1/view1_frontal.jpg": DISEASED}, "valid")
    assert labels(find(tmp_path))["patient64541_study1_view1_frontal"] == 1


def test_marks_may_be_whole_numbers(tmp_path):
    films = {"patient00001/study1/view1_frontal.jpg": {"No Finding": "1", "Pleural Effusion": "0"}}
    assert list(labels(find(write_chexpert(tmp_path, films))).values()) == [0]


def test_a_film_is_linked_to_its_file(tmp_path):
    channel = find(write_chexpert(tmp_path, FILMS))[0].read().channels[0]
    assert channel.file == tmp_path / "train/patient00001/study1/view1_frontal.jpg"


def test_finding_reads_no_film(tmp_path):
    write_chexpert(tmp_path, FILMS)
    (tmp_path / "train/patient00001/study1/view1_frontal.jpg").write_bytes(b"")
    assert len(find(tmp_path)) == 3


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.unlink(), "expected a picture, got none there"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:-30]),
            "expected a readable picture, got one that is damaged",
        ),
        (lambda path: Image.fromarray(np.stack([film()] * 3, -1)).save(path), "got one of mode RGB"),
        (lambda path: Image.fromarray(film() * 0).save(path), "got the same value 0 everywhere"),
    ],
    ids=["missing", "cut off", "colours", "constant"],
)
def test_a_film_that_cannot_be_used_is_named(tmp_path, spoil, reason):
    scan = find(write_chexpert(tmp_path, FILMS))[0]
    spoil(tmp_path / "train/patient00001/study1/view1_frontal.jpg")
    with pytest.raises(BadFileError, match=rf"patient00001/study1/view1_frontal.jpg: .*{reason}"):
        scan.read()


@pytest.mark.parametrize("finding", ["Pleural effusion", "No Finding", "Age", ""])
def test_an_unknown_finding_is_refused_with_those_there_are(tmp_path, finding):
    with pytest.raises(ValueError, match=r"finding must be one of Enlarged Cardiomediastinum, .*, got '"):
        find(write_chexpert(tmp_path, FILMS), finding)


@pytest.mark.parametrize("missing", ["Path", "Frontal/Lateral", "No Finding"])
def test_a_table_without_a_column_is_refused(tmp_path, missing):
    (tmp_path / "train.csv").write_text(",".join(name for name in COLUMNS if name != missing) + "\n")
    with pytest.raises(ValueError, match=rf"train.csv: expected a table of films, got one without {missing}\."):
        find(tmp_path)


def test_a_path_that_names_no_film_is_refused(tmp_path):
    write_chexpert(tmp_path, {"patient1.jpg": HEALTHY})
    with pytest.raises(ValueError, match=r"train.csv: expected paths as train/patient00001/study1/view1_frontal.jpg"):
        find(tmp_path)


def test_a_folder_without_tables_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected train.csv or valid.csv with frontal films"):
        find(tmp_path)


NIH = {
    "00000001_000.png": ("No Finding", "PA"),
    "00000001_001.png": ("Effusion|Infiltration", "AP"),
    "00000002_000.png": ("Infiltration", "PA"),
    "00000003_000.png": ("Effusion", "PA"),
}


def test_films_of_nih_are_healthy_or_have_the_finding(tmp_path, caplog):
    caplog.set_level("INFO")
    scans = find_nih(write_nih(tmp_path, NIH), "Pleural Effusion")
    assert labels(scans) == {"00000001_000": 0, "00000001_001": 1, "00000003_000": 1}
    assert [scan.patient for scan in scans] == ["00001", "00001", "00003"]
    assert "1 films are left out, as neither No Finding nor Effusion is marked." in caplog.text


def test_views_may_be_chosen_and_films_may_be_absent(tmp_path, caplog):
    caplog.set_level("INFO")
    src = write_nih(tmp_path, NIH)
    next(src.rglob("00000003_000.png")).unlink()
    assert labels(find_nih(src, "Effusion", "PA")) == {"00000001_000": 0}
    assert "1 films are left out, as they are not PA." in caplog.text
    assert "1 films are left out, as they are not there." in caplog.text
    chexpert = write_chexpert(tmp_path / "chexpert", {path: {"AP/PA": "AP", **row} for path, row in FILMS.items()})
    assert len(find_chexpert(chexpert, "Pleural Effusion", "AP")) == 3
    with pytest.raises(FileNotFoundError):
        find_chexpert(chexpert, "Pleural Effusion", "PA")


def test_findings_and_views_that_nih_does_not_have_are_refused(tmp_path):
    src = write_nih(tmp_path, NIH)
    with pytest.raises(ValueError, match="finding must be one of Effusion, Infiltration, got 'Cough'"):
        find_nih(src, "Cough")
    with pytest.raises(ValueError, match="views must be one of all, PA, AP, got 'lateral'"):
        find_nih(src, "Effusion", "lateral")
    with pytest.raises(FileNotFoundError, match=r"expected Data_Entry_2017.csv with films of No Finding or Effusion"):
        find_nih(tmp_path / "images_001", "Effusion")


def test_the_column_of_views_is_needed_where_they_are_chosen(tmp_path):
    src = write_chexpert(tmp_path, FILMS)
    table = src / "train.csv"
    table.write_text(table.read_text().replace("AP/PA", "Projection"))
    assert len(find_chexpert(src, "Pleural Effusion")) == 3
    with pytest.raises(ValueError, match=r"train.csv: expected a table of films, got one without AP/PA\."):
        find_chexpert(src, "Pleural Effusion", "PA")

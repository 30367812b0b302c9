"""X-rays in a bundle for films of the chest: training, inference and evaluation from the command line."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_runs import assert_done, run_bundle
from PIL import Image

from ci import bundle_parser
from ci.recipes import find_bundle
from common.data.reading import FILM_AFFINE
from common.phantoms.__main__ import write_phantoms

BUNDLE, *OVERLAYS = filter(None, find_bundle("X-ray", "chest"))
LAYERS = (BUNDLE, "inference", *OVERLAYS)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """Weights that know nothing."""
    path = tmp_path_factory.mktemp("models") / "model.pt"
    torch.manual_seed(0)
    torch.save(bundle_parser(*LAYERS).get_parsed_content("network_def").state_dict(), path)
    return path


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_films_of_all_formats_are_done_on_their_own_grid_and_bad_ones_are_named(untrained, tmp_path):
    data, out = tmp_path / "Röntgen 1", tmp_path / "out put"
    data.mkdir()
    rows = np.random.default_rng(0).integers(0, 256, (50, 61), dtype=np.uint8)
    good = {"picture": rows, "photo": rows[:39, :32], "tall array": rows[:, :20]}
    Image.fromarray(good["picture"]).save(data / "picture.png")
    Image.fromarray(good["photo"]).save(data / "photo.JPG")
    np.save(data / "tall array.npy", good["tall array"] * 0.01 - 3)
    (data / "cut.png").write_bytes((data / "picture.png").read_bytes()[:900])
    Image.fromarray(0 * rows).save(data / "flat.png")
    Image.fromarray(np.stack([rows] * 3, -1)).save(data / "coloured.png")
    np.save(data / "nan.npy", np.where(rows == 7, np.nan, rows))

    process = run_bundle(*LAYERS, dataset_dir=data, output_dir=out, model_path=untrained)

    text = process.stdout + process.stderr
    assert process.returncode == 1, text[-3000:]
    assert {path.name for path in out.iterdir() if path.is_dir()} == set(good)
    for case, pixels in good.items():
        for name in ("anomaly", "healthy", "mask", "organ"):
            result = nib.load(out / case / f"{case}_{name}.nii.gz")
            assert result.shape == pixels.T.shape
            np.testing.assert_array_equal(result.affine, FILM_AFFINE)
            assert np.isfinite(result.get_fdata()).all()
        assert nib.load(out / case / f"{case}_organ.nii.gz").get_fdata().all()
        assert (out / case / f"{case}_overlay.png").stat().st_size > 5000
    page = (out / "report.html").read_text()
    for case in ("cut", "flat", "coloured", "nan"):
        assert f"{case}." in text, case
        assert case in page, case
    assert not (out / "summary.csv").exists()


@pytest.mark.slow
def test_classes_of_films_are_enough_to_train_and_to_evaluate(tmp_path):
    data = tmp_path / "films"
    write_phantoms("chest_xray", str(data), training=4, validation=2, testing=4, shape=(40, 48), spacing=(8.0, 8.0))
    labelled = json.loads((data / "dataset.json").read_text())
    splits = ("training", "validation", "testing")
    tagged = {split: [{k: v for k, v in item.items() if k != "label"} for item in labelled[split]] for split in splits}
    (data / "dataset.json").write_text(json.dumps(tagged))
    options = {"dataset_dir": data, "model_path": tmp_path / "model.pt"}
    assert_done(run_bundle(BUNDLE, "train", *OVERLAYS, output_dir=tmp_path / "train", **options))
    weights = torch.load(options["model_path"], weights_only=True)
    assert {name.split(".")[0] for name in weights} == {"diffusion", "classifier", "threshold", "threshold_settings"}
    assert weights["threshold"].isfinite()

    out = tmp_path / "tagged"
    assert_done(run_bundle(*LAYERS, "evaluate", output_dir=out, num_bootstraps=20, **options))
    names = ["AUROC of the map", "AUROC of the classifier", "accuracy of the classifier"]
    assert [row["metric"] for row in table(out / "summary.csv")] == [f"image-level {name}" for name in names]
    assert [row["diseased"] for row in table(out / "per_patient.csv")] == ["0", "1", "0", "1"]
    assert "Detection by case" in (out / "report.html").read_text()

    (data / "dataset.json").write_text(json.dumps(labelled))
    out = tmp_path / "labelled"
    assert_done(run_bundle(*LAYERS, "evaluate", output_dir=out, num_bootstraps=20, **options))
    found = {row["metric"]: row["value"] for row in table(out / "summary.csv")}
    assert found["pixel AUROC, pooled"] != "nan"
    assert found["image-level AUROC of the map"] != "nan"
    assert found["mask in slices without lesions, cm²"] == "nan"

import json

import numpy as np

from common.files import read_csv, write_csv
from common.studies.controls import write_by_column, write_harmonised

RNG = np.random.default_rng(0)
MOVED = {"T": 0.0, "A": 4.0, "B": -4.0}


def evaluation(folder, cells):
    """Write what an evaluation writes, of vectors that are moved by their site, and in one axis by their class."""
    sites = [site for site, counts in cells.items() for count in counts for _ in range(count)]
    labels = np.array([k for counts in cells.values() for k, count in enumerate(counts) for _ in range(count)])
    latents = RNG.normal(size=(len(sites), 6)) + np.array([MOVED[site] for site in sites])[:, None]
    latents[:, 0] += 6 * labels
    folder.mkdir()
    np.savez(folder / "latents.npz", case=np.arange(len(sites)), site=sites, image_label=labels, latent=latents)
    known = [
        {"case": i, "site": site, "image_label": int(k)} for i, (site, k) in enumerate(zip(sites, labels, strict=True))
    ]
    said = {"probability_0": 0.5, "probability_1": 0.5, "distance_0": 0, "distance_1": 0, "nearest": 0, "prediction": 0}
    write_csv(folder / "predictions.csv", [{**row, **said} for row in known])
    write_csv(folder / "per_patient.csv", [{**row, "patient": row["case"]} for row in known])
    return folder


def test_classes_are_told_where_their_sites_were_never_seen_with_them(tmp_path):
    learnt = evaluation(tmp_path / "learnt", {"T": (30, 30), "A": (0, 60), "B": (60, 0)})
    tried = evaluation(tmp_path / "tried", {"A": (30, 0), "B": (0, 30)})
    write_harmonised(learnt, tried, tmp_path / "out")
    rows = read_csv(tmp_path / "out" / "predictions.csv")
    assert np.mean([row["prediction"] == row["image_label"] for row in rows]) > 0.9
    assert np.mean([row["nearest"] == row["image_label"] for row in rows]) > 0.9
    assert all(abs(float(row["probability_0"]) + float(row["probability_1"]) - 1) < 1e-9 for row in rows)
    assert list(rows[0]) == list(read_csv(tried / "predictions.csv")[0])
    assert (tmp_path / "out" / "per_patient.csv").read_text() == (tried / "per_patient.csv").read_text()


def test_a_number_that_tells_the_class_is_enough(tmp_path):
    def item(part, n, site):
        far = n % 5 in (0, 4)
        known = {"site": site, "image_label": int(far == (site == "T")), "position": n % 5 / 4}
        return {"case": f"{part}{n}{site}", "patient": f"{part}{n}{site}", **known}

    content = {part: [item(part, n, site) for n in range(20) for site in "TA"] for part in ("training", "testing")}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    write_by_column(tmp_path, tmp_path, "position", ["T"], tmp_path / "out")
    rows = read_csv(tmp_path / "out" / "predictions.csv")
    assert all((row["prediction"] == row["image_label"]) == (row["site"] == "T") for row in rows)
    assert [row["case"] for row in rows] == [item["case"] for item in content["testing"]]
    assert read_csv(tmp_path / "out" / "per_patient.csv")[1] == {"case": "testing0A", "patient": "testing0A"}

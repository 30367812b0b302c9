"""Odd inputs in a run of a bundle, as its users start it."""

import html

import nibabel as nib
import numpy as np
import pytest
from bundle_runs import cases_done, outputs, run_bundle

from ci.robustness.__main__ import INPUTS
from ci.robustness.inputs import FOUND, LISTED
from ci.robustness.judging import listed, with_all_sequences, write_inputs

SHOWN = {
    *("stored as PIR", "oblique, stored as LPS", "sheared, as by a tilted gantry", "names in capitals", "half of HU"),
    *("one slice, two axes", "slopes that differ, RLE", "folder whose name is no UTF-8", "label of 0 and 255"),
    *("BIDS", "sequences along a fifth axis", "scaled to a deviation of 1", "label that is called seg"),
    *("turned by its EXIF data", "array of half floats", "PNG of 16 bits", "inverted"),
}
"""Of the good ones that are found; those that are listed are few enough."""


@pytest.mark.slow
@pytest.mark.parametrize(("modality", "place"), [("CT", FOUND), ("CT", LISTED), ("MR", FOUND), ("X-ray", FOUND)])
def test_a_run_does_the_good_ones_names_the_others_and_ends_with_status_1(modality, place, tmp_path):
    layers, data, out = with_all_sequences(modality), tmp_path / place, tmp_path / "out"
    inputs = [each for each in INPUTS[modality] if each.place == place]
    write_inputs([each for each in inputs if each.outcome == "refused" or each.name in SHOWN or each.items], tmp_path)
    taken = listed(layers, data)

    process = run_bundle(*layers, dataset_dir=data, output_dir=out)

    text, page = process.stdout + process.stderr, (out / "report.html").read_text(encoding="utf-8")
    assert process.returncode == 1, text[-3000:]
    assert cases_done(out) == {item["case"] for item in taken.items}
    for item in taken.items:
        case = item["case"]
        for name in outputs(layers[0]):
            assert np.isfinite(nib.load(out / case / f"{case}_{name}.nii.gz").get_fdata()).all()
        assert html.escape(item.get("remarks", case), quote=False) in page
    for case, reason in taken.reasons.items():
        assert f"  {case}: {reason}" in text
        assert html.escape(case, quote=False) in page
    for reason in taken.left_out:
        assert reason in text
    assert not list(out.rglob("*tmp*"))

"""A run of many cases needs no more memory than one of few."""

import gc
import os
from pathlib import Path

import pytest
from ignite.engine import Events

from ci import bundle_parser
from ci.recipes import recipe_of
from ci.robustness.ct import around_the_liver
from ci.robustness.inputs import nifti
from ci.robustness.judging import with_all_sequences

PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20


def resident_mb():
    """Return how much memory the process has at the moment."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_MB


@pytest.mark.slow
def test_fifty_cases_in_a_run_take_no_more_memory_than_ten(tmp_path):
    for case in range(50):
        nifti(around_the_liver(2), name=f"{case:02}")(tmp_path / "data")
    layers = with_all_sequences("CT")
    folders = {"dataset_dir": str(tmp_path / "data"), "output_dir": str(tmp_path / "out")}
    parser = bundle_parser(*layers, **folders, **recipe_of(layers[0]).fast["inference"])
    evaluator = parser.get_parsed_content("evaluator")
    after = []

    @evaluator.on(Events.ITERATION_COMPLETED)
    def note():
        gc.collect()  # figures refer to themselves
        after.append(resident_mb())

    evaluator.run()
    assert len(after) == 50
    assert after[49] <= after[9] + 8

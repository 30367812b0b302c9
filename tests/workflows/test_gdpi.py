"""What GDPI alone does: it draws slices."""

import pytest
from bundle_runs import assert_done, run_bundle


@pytest.mark.slow
def test_it_draws_slices(tmp_path):
    assert_done(run_bundle("gdpi", "inference", run_id="sample", output_dir=tmp_path, sample_steps=4, num_generated=2))
    assert (tmp_path / "samples.png").stat().st_size > 5000

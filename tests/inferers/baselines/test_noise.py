import pytest
import torch
from translated import TOWARDS_HEALTH, brain, brain_network, ddim, maps, translating

from common.inferers.baselines.noise import NoiseTranslator


def test_random_noise_in_place_of_the_encoding_forgets_the_image_and_depends_on_the_seed():
    image, network = brain(), brain_network()
    options = {**TOWARDS_HEALTH, "noise_level": 80}
    first, again, other = (
        maps(translating(NoiseTranslator, **options, seed=seed)(image, network))["anomaly"] for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    encoded = maps(ddim(noise_level=80)(image, network))["anomaly"]
    assert first.mean() > 3 * encoded.mean()


def test_a_noise_level_below_which_no_step_is_made_is_refused():
    with pytest.raises(ValueError, match="0 lie below noise_level 4 "):
        NoiseTranslator(**{**TOWARDS_HEALTH, "noise_level": 4})

from functools import partial

import pytest
import torch
from translated import TOWARDS_HEALTH, brain, brain_network, ddim

from common.inferers.ddim import DdimTranslator
from common.inferers.translation import Translator
from common.inferers.variants import EachByItself, SharedEncoding, one_at_a_time
from common.samplers.guidance import classifier_guidance
from common.samplers.noise import randn_like

PIXEL_MM = (2.0, 2.0)


@pytest.fixture
def network():
    return brain_network()


@pytest.fixture
def image():
    return brain(num_slices=2)


def examine(variants, image, network, **options):
    return variants.examine(ddim(**options), image[0].as_tensor(), PIXEL_MM, network)


def test_several_levels_and_scales_share_one_encoding(network, image):
    """As few calls as one encoding up to the highest level, and all decodings."""
    variants = SharedEncoding(
        translator=DdimTranslator(**TOWARDS_HEALTH), noise_levels=[25, 50], guidance_scales=[0.0, 10.0]
    )
    examine(variants, image, network)
    assert network.diffusion.calls == variants.num_steps == 10 + 2 * (5 + 10)


@pytest.mark.parametrize("index_mode", ["paper", "authors"])
def test_each_version_of_a_shared_encoding_is_that_of_a_translator_with_its_setting(network, image, index_mode):
    options = {**TOWARDS_HEALTH, "index_mode": index_mode}
    variants = SharedEncoding(translator=DdimTranslator(**options), noise_levels=[25, 50], guidance_scales=[0.0, 10.0])
    versions = examine(variants, image, network)
    assert [[*setting.values()] for setting in variants.settings] == [[25, 0], [25, 10], [50, 0], [50, 10]]
    for version, setting in zip(versions, variants.settings, strict=True):
        assert torch.equal(version, ddim(**{**options, **setting})(image, network)[0])


def test_several_tasks_share_one_encoding_and_equal_single_runs(network, image):
    tasks = [{"classifier": partial(classifier_guidance, target=target)} for target in (0, 1)]
    translator = DdimTranslator(**{**TOWARDS_HEALTH, "guidance_scale": 10.0})
    variants = SharedEncoding(translator=translator, guidances=tasks)
    versions = examine(variants, image, network)
    assert network.diffusion.calls == variants.num_steps == 10 + 2 * 10
    assert [setting["task"] for setting in variants.settings] == [0, 1]
    for version, task in zip(versions, tasks, strict=True):
        assert torch.equal(version, ddim(guidance=task, guidance_scale=10.0)(image, network)[0])


def test_a_level_below_which_no_step_is_made_is_refused():
    with pytest.raises(ValueError, match="0 lie below noise_level 4 "):
        SharedEncoding(translator=DdimTranslator(**TOWARDS_HEALTH), noise_levels=[50, 4])


def test_without_other_values_a_shared_encoding_has_the_translators_own(network, image):
    variants = SharedEncoding(translator=DdimTranslator(**TOWARDS_HEALTH))
    assert variants.settings == [{"noise_level": 50, "guidance_scale": 0.0}]
    (version,) = examine(variants, image, network)
    assert torch.equal(version, ddim()(image, network)[0])


class Noisy(Translator):
    """Adds noise, ``share`` of it, and keeps it."""

    def __init__(self, *, share, more=0.0):
        self.share, self.more, self.drawn = share, more, []

    @property
    def num_steps(self):
        return 2

    def __call__(self, batch, network, generators, progress):
        self.drawn.append(randn_like(batch.image, generators))
        return batch.image + self.share * self.drawn[-1]


def test_translators_that_are_asked_one_by_one_see_the_same_noise(network, image):
    translators = [Noisy(share=share) for share in (0.1, 0.2)]
    variants = EachByItself(translators=translators, settings=[{"share": 0.1}, {"share": 0.2}])
    examine(variants, image, network)
    first, second = (translator.drawn for translator in translators)
    assert torch.equal(first[0], second[0])
    assert variants.num_steps == 4


def test_translators_that_are_asked_one_by_one_give_what_each_gives_alone(network, image):
    settings = [{"noise_level": 25}, {"noise_level": 50}]
    translators = [DdimTranslator(**{**TOWARDS_HEALTH, **setting, "index_mode": "authors"}) for setting in settings]
    versions = examine(EachByItself(translators=translators, settings=settings), image, network)
    for version, setting in zip(versions, settings, strict=True):
        assert torch.equal(version, ddim(**setting, index_mode="authors")(image, network)[0])


def test_one_key_at_a_time_has_other_values_and_the_others_those_given():
    made = one_at_a_time(partial(Noisy, share=0.5, more=1.0), {"share": [0.1, 0.5], "more": [2.0]})
    assert [variants.settings for variants in made] == [
        [{"share": 0.1, "more": 1.0}, {"share": 0.5, "more": 1.0}],
        [{"share": 0.5, "more": 2.0}],
    ]
    for variants in made:
        assert [{"share": t.share, "more": t.more} for t in variants.translators] == variants.settings

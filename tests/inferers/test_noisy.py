import numpy as np
import torch
from conftest import GOLDEN, TinyUNet

from common.inferers.noisy import NoisyInferer
from common.losses.hybrid_vlb import HybridVLBLoss
from common.schedulers import NoiseSchedule
from common.training.batches import NoisyPrepareBatch


def test_a_network_sees_the_noisy_image_its_timesteps_and_its_classes():
    schedule, seen = NoiseSchedule(100), {}

    def network(x_t, timesteps, **classes):
        seen.update(x_t=x_t, timesteps=timesteps, **classes)
        return x_t

    image, noise, timesteps = torch.ones(2, 1, 4, 4), torch.full((2, 1, 4, 4), 0.5), torch.tensor([0, 7])
    NoisyInferer(schedule)(image, network, noise=noise, timesteps=timesteps)
    assert seen.keys() == {"x_t", "timesteps"}
    assert torch.equal(seen["x_t"], schedule.add_noise(image, noise, timesteps))
    labels = torch.tensor([1, 0])
    NoisyInferer(schedule)(image, network, noise=noise, timesteps=timesteps, class_labels=labels)
    assert seen["class_labels"] is labels


def test_a_condition_comes_before_the_noisy_image():
    schedule, image, condition = NoiseSchedule(100), torch.ones(2, 1, 4, 4), torch.full((2, 3, 4, 4), 0.2)
    noise, timesteps = torch.full((2, 1, 4, 4), 0.5), torch.tensor([0, 7])
    found = NoisyInferer(schedule)(image, lambda x, t: x, noise=noise, timesteps=timesteps, condition=condition)
    assert torch.equal(found, torch.cat([condition, schedule.add_noise(image, noise, timesteps)], 1))


def test_the_loss_of_conditioned_masks_equals_that_of_the_released_program(monkeypatch):
    recorded, masks = (np.load(GOLDEN / f"{name}.npz") for name in ("hybrid_vlb", "segmentation"))
    image, noise, timesteps, label = (
        torch.tensor(x) for x in (recorded["x"], recorded["noise"][:, :1], recorded["t"], masks["seg_mask_raw"])
    )
    monkeypatch.setattr(torch, "randn", lambda *_, **__: noise)
    monkeypatch.setattr(torch, "randint", lambda *_, **__: timesteps)
    prepare, schedule = NoisyPrepareBatch(1000, conditioned=True, patch_size=(8, 8)), NoiseSchedule(1000)
    mask, target, _, given = prepare.prepare({"image": image, "label": label})
    found = NoisyInferer(schedule)(mask, TinyUNet(of_masks=True), **given)
    loss = HybridVLBLoss(schedule, reduction="none")(found, target)
    np.testing.assert_allclose(loss, masks["seg_loss"], rtol=1e-5, atol=1e-5)
    simple = HybridVLBLoss(schedule, reduction="none")(found[:, :1], target)
    np.testing.assert_allclose(simple, masks["seg_mse"], rtol=1e-5, atol=1e-5)

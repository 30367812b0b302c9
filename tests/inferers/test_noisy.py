import torch

from common.inferers.noisy import NoisyInferer
from common.schedulers import NoiseSchedule


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

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

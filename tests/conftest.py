"""Settings of all tests."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

os.environ["RAISE_FAULTS"] = "1"  # also of the processes that tests start

settings.register_profile("torch", deadline=None, derandomize=True)
settings.load_profile("torch")

GOLDEN = Path(__file__).parent / "golden"


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


class TinyUNet:
    """The noise predictor that the golden vectors were made with, of images or of masks; weights are a recording."""

    def __init__(self, dtype: torch.dtype = torch.float64, of_masks: bool = False) -> None:
        recorded = np.load(GOLDEN / "tiny_unet.npz")
        weights = np.load(GOLDEN / "segmentation.npz") if of_masks else recorded
        names = {name.partition("_")[2]: name for name in weights.files if name.startswith(("unet_", "segnet_"))}
        self.w = {short: torch.tensor(weights[name], dtype=dtype) for short, name in names.items()}
        self.classifier = {n[4:]: torch.tensor(recorded[n], dtype=dtype) for n in recorded.files if n[:3] == "cls"}
        self.image = torch.tensor(recorded["x0"], dtype=dtype)
        self.noise = torch.tensor(recorded["noise"], dtype=dtype)

    def __call__(self, x_t, timesteps, classes=None):
        embedding = self._embed(timesteps, x_t) @ self.w["U"].T
        if classes is not None:
            embedding = embedding + self.w["E"][classes]
        hidden = torch.conv2d(x_t, self.w["W1"], self.w["b1"], padding=1) + embedding[:, :, None, None]
        return torch.conv2d(hidden.tanh(), self.w["W2"], self.w["b2"], padding=1)

    def classify(self, x_t, timesteps):
        """Return the logits of the classifier that guidance was recorded with."""
        w = self.classifier
        shift = self._embed(timesteps, x_t) @ w["U"].T
        hidden = (torch.conv2d(x_t, w["W1"], w["b1"], padding=1) + shift[:, :, None, None]).tanh()
        return hidden.mean((2, 3)) @ w["V"].T

    @staticmethod
    def _embed(timesteps, x_t):
        frequencies = torch.exp(-np.log(1e4) * torch.arange(4, dtype=x_t.dtype) / 4)
        angles = timesteps[:, None].to(x_t) * frequencies
        return torch.cat([angles.cos(), angles.sin()], 1)


def healthy(model):
    """Return the class-conditional model at class 0, as it was recorded."""
    return lambda x_t, timesteps: model(x_t, timesteps, torch.zeros(len(x_t), dtype=torch.long))


class GaussianModel:
    """The exact noise predictor for pixels that are drawn from a Gaussian of known mean and covariance."""

    def __init__(self, mean, covariance, alphas_cumprod):
        self.mean = torch.as_tensor(mean, dtype=torch.float64)
        self.covariance = torch.as_tensor(covariance, dtype=torch.float64)
        self.alphas_cumprod = alphas_cumprod

    def __call__(self, x_t, timesteps):
        alpha_bar = self.alphas_cumprod[timesteps[0]]
        noisy = alpha_bar * self.covariance + (1 - alpha_bar) * torch.eye(len(self.mean), dtype=torch.float64)
        centred = x_t.flatten(1) - alpha_bar.sqrt() * self.mean
        return ((1 - alpha_bar).sqrt() * torch.linalg.solve(noisy, centred.T).T).reshape(x_t.shape)


@pytest.fixture
def tiny_unet():
    return TinyUNet()


@pytest.fixture
def tiny_classifier(tiny_unet):
    return tiny_unet.classify

import pytest
import torch
import torch.nn.functional as F
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import norm

from common.losses.aleatoric import AleatoricLoss


def test_without_variance_it_is_the_cross_entropy():
    mean = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    target = (mean > 0.3).float()
    pred = torch.cat([mean, torch.full_like(mean, -60.0)], dim=1)
    torch.testing.assert_close(AleatoricLoss()(pred, target), F.binary_cross_entropy_with_logits(mean, target))


@pytest.mark.parametrize(("mean", "deviation"), [(1.0, 2.0), (-2.0, 3.0), (0.5, 0.5)])
def test_it_is_the_logarithm_of_the_expected_probability(mean, deviation):
    torch.manual_seed(0)
    pred = torch.tensor([mean, 2 * torch.tensor(deviation).log()]).view(1, 2, 1, 1)
    expected = quad(lambda x: expit(x) * norm.pdf(x, mean, deviation), -40, 40)[0]
    loss = AleatoricLoss(num_draws=100_000)(pred, torch.ones(1, 1, 1, 1))
    assert loss.exp().item() == pytest.approx(1 / expected, rel=0.01)


def test_variance_makes_a_mistake_cheaper_and_is_learnt():
    torch.manual_seed(0)
    wrong, log_variance = torch.full((1, 1, 8, 8), 3.0), torch.zeros(1, 1, 8, 8, requires_grad=True)
    AleatoricLoss()(torch.cat([wrong, log_variance], dim=1), torch.zeros(1, 1, 8, 8)).backward()
    assert (log_variance.grad.mean()) < 0


def test_masks_of_several_regions():
    pred, target = torch.zeros(2, 4, 3, 3), torch.ones(2, 2, 3, 3)
    assert AleatoricLoss()(pred, target).shape == ()

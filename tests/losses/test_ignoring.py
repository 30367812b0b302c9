import torch
from monai.losses import DiceCELoss
from torch import nn

from common.losses.ignoring import IgnoringLoss

OPTIONS = {"to_onehot_y": True, "softmax": True, "squared_pred": True, "smooth_nr": 0.0, "smooth_dr": 1e-6}


class CrossEntropy(nn.Module):
    def forward(self, logits, label):
        return nn.functional.cross_entropy(logits, label[:, 0].long(), reduction="sum")


def example():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 8, 8, 8, generator=generator)
    return logits.requires_grad_(), torch.randint(0, 3, (2, 1, 8, 8, 8), generator=generator)


def test_without_ignored_voxels_it_is_the_loss_itself():
    logits, label = example()
    assert torch.equal(IgnoringLoss(DiceCELoss(**OPTIONS))(logits, label), DiceCELoss(**OPTIONS)(logits, label))


def test_ignored_voxels_have_no_gradient_and_do_not_count():
    logits, label = example()
    label[:, :, :4] = 255
    loss = IgnoringLoss(CrossEntropy())(logits, label)
    torch.testing.assert_close(loss, CrossEntropy()(logits[:, :, 4:], label[:, :, 4:]), rtol=1e-5, atol=1e-4)
    IgnoringLoss(DiceCELoss(**OPTIONS))(logits, label).backward()
    assert not logits.grad[:, :, :4].any()
    assert logits.grad[:, :, 4:].any()

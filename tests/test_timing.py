import time
from copy import deepcopy

import pytest
import torch
from torch import nn

from ci.timing import time_of
from common.timing import Stopwatch


def test_the_fastest_of_some_calls_is_what_a_call_takes():
    waits = iter([0.3, 0.01, 0.3])
    assert 0.01 <= time_of(lambda: time.sleep(next(waits)), repeats=3) < 0.3


def test_calls_for_warming_up_do_not_count():
    waits = iter([0.0, 0.0, 0.05])
    assert time_of(lambda: time.sleep(next(waits)), warm_up=2) >= 0.05
    with pytest.raises(StopIteration):
        next(waits)


def test_a_stopwatch_counts_calls_and_images_and_the_way_back_and_leaves_no_trace():
    module, image = nn.Conv2d(1, 1, 3), torch.rand(5, 1, 8, 8, requires_grad=True)
    expected = module(image)
    with Stopwatch(module) as watch:
        assert torch.equal(module(image), expected)
        assert (watch.calls, watch.images, watch.gradient_seconds) == (1, 5, 0)
        module(image[:2]).sum().backward()
    module(image).sum().backward()
    assert (watch.calls, watch.images) == (2, 7)
    assert watch.seconds > 0
    assert watch.gradients == 2
    assert watch.gradient_seconds > 0
    assert not module._forward_hooks
    assert not module._backward_hooks


def test_what_a_copy_does_counts_too():
    module = nn.Conv2d(1, 1, 3)
    with Stopwatch(module) as watch:
        deepcopy(module)(torch.rand(3, 1, 8, 8, requires_grad=True)).sum().backward()
    assert (watch.calls, watch.images, watch.gradients) == (1, 3, 3)

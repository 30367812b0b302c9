"""The codebook: what it starts from, restarts, keeps, and shares between processes."""

import socket
from copy import deepcopy

import torch
from half_batches import keep_codes, latent
from torch.multiprocessing import spawn

from common.networks.quantiser import RestartQuantiser


def vectors_of(image):
    return image.movedim(1, -1).reshape(-1, image.shape[1])


def trained(steps=3, **options):
    torch.manual_seed(0)
    quantiser = RestartQuantiser(16, 4, **options)
    for step in range(steps):
        quantiser(latent(step))
    return quantiser


def test_codes_start_as_vectors_of_the_first_batch():
    quantiser = RestartQuantiser(16, 4, restart_below=0.0)
    quantiser._start(torch.ones(16, dtype=torch.bool), vectors_of(latent()))
    same = (quantiser.codes[:, None] == vectors_of(latent())).all(-1)
    assert same.any(1).all()
    assert len(same.int().argmax(1).unique()) == 16


def test_more_codes_than_vectors_start_a_little_apart():
    quantiser = RestartQuantiser(500, 4)
    quantiser._start(torch.ones(500, dtype=torch.bool), vectors_of(latent()))
    assert len(quantiser.codes.unique(dim=0)) == 500
    assert torch.cdist(quantiser.codes, vectors_of(latent())).min(1).values.max() < 0.05


def test_what_is_quantised_is_the_nearest_code():
    quantiser = trained().eval()
    quantised, loss = quantiser(latent(9))
    distances = torch.cdist(vectors_of(latent(9)), quantiser.codes)
    assert torch.equal(quantiser.nearest(latent(9)).flatten(), distances.argmin(1))
    torch.testing.assert_close(quantised, quantiser.quantise(latent(9)))
    torch.testing.assert_close(loss, 0.25 * (quantised - latent(9)).square().mean())


def test_chunks_of_distances_make_no_difference(monkeypatch):
    quantiser = trained().eval()
    whole = quantiser.nearest(latent(9))
    monkeypatch.setattr("common.networks.quantiser.CHUNK", 100)
    assert torch.equal(quantiser.nearest(latent(9)), whole)


def test_the_gradient_of_a_quantised_image_is_that_of_the_image():
    image = latent().requires_grad_(True)
    quantised, loss = trained().eval()(image)
    quantised.sum().backward()
    assert (image.grad == 1).all()
    image.grad = None
    (quantised, loss) = trained().eval()(image)
    loss.backward()
    torch.testing.assert_close(image.grad, 2 * 0.25 * (image - quantised).detach() / image.numel())


def test_codes_are_moving_averages_of_their_vectors():
    quantiser = trained(restart_below=0.0)
    before = deepcopy(quantiser)
    quantiser(latent(7))
    numbers, vectors = before.nearest(latent(7)).flatten(), vectors_of(latent(7))
    code = int(numbers.mode().values)
    mine = vectors[numbers == code]
    count = 0.99 * before.counts[code] + 0.01 * len(mine)
    total = 0.99 * before.sums[code] + 0.01 * mine.sum(0)
    torch.testing.assert_close(quantiser.codes[code], total / count)


def test_a_code_that_nothing_uses_starts_again_as_a_vector_of_the_batch():
    quantiser = trained(restart_below=0.0)
    quantiser.restart_below = 1.0
    quantiser.codes[3], quantiser.sums[3], quantiser.counts[3] = 100.0, 100.0, 1.0
    quantiser(latent(7))
    assert torch.cdist(quantiser.codes[3:4], vectors_of(latent(7))).min() < 1e-5


def test_evaluation_changes_nothing():
    quantiser = trained().eval()
    before = deepcopy(quantiser.state_dict())
    quantiser(latent(5))
    assert all(torch.equal(value, before[name]) for name, value in quantiser.state_dict().items())


def test_a_resumed_codebook_goes_on_as_an_unbroken_one():
    unbroken = trained(steps=5)
    resumed = RestartQuantiser(16, 4)
    resumed.load_state_dict(trained(steps=3).state_dict())
    for step in (3, 4):
        resumed(latent(step))
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in unbroken.state_dict().items())


def test_two_processes_keep_the_codes_of_one(tmp_path):
    with socket.socket() as one:
        one.bind(("localhost", 0))
        port = one.getsockname()[1]
    spawn(keep_codes, (port, str(tmp_path / "codes")), nprocs=2)
    expected = trained().state_dict()
    for rank in (0, 1):
        found = torch.load(tmp_path / f"codes.{rank}", weights_only=True)
        assert all(torch.equal(found[name], value) for name, value in expected.items())

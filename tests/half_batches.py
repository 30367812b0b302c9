"""A codebook that two processes keep together, each with half of every batch."""

import os

import torch

from common.networks.quantiser import RestartQuantiser


def latent(seed=0, batch=2):
    """Return latent images of four channels."""
    return torch.randn(batch, 4, 3, 4, 5, generator=torch.Generator().manual_seed(seed))


def keep_codes(rank, port, path):
    """Update the codes three times in one of two processes, and keep them."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo")
    torch.manual_seed(0)
    quantiser = RestartQuantiser(16, 4)
    for step in range(3):
        quantiser(latent(step)[rank : rank + 1])
    torch.save(quantiser.state_dict(), f"{path}.{rank}")
    torch.distributed.destroy_process_group()

"""A codebook that is kept by moving averages, starts from data, and takes no code along that nothing uses."""

import ignite.distributed as idist
import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNK = 2**22
"""Distances that are computed at a time, 16 MB."""


class RestartQuantiser(nn.Module):
    """Replace each vector of a latent image by the nearest code.

    The codes are moving averages of the vectors that they stand for, no gradient moves them. They start as vectors of
    the first batch; a code that stands for less than one vector a batch on average starts again as one of the present
    batch. All state is in buffers, so that a resumed training goes on as it would have; among several processes every
    one sees the vectors of all, so that they keep the same codes as one process with the whole batch.

    MONAI's ``EMAQuantizer`` has neither start nor restart, and makes a dense matrix of vectors x codes.

    Sources: van den Oord et al. 2017, appendix A.1; Dhariwal et al. 2020, "Jukebox", section 3.1.

    Attributes:
        codes: shape (num_embeddings, embedding_dim).
        counts: moving average of how many vectors of a batch each code stands for.
        sums: moving average of their sum.
        num_updates: batches that the codes have seen; 0 until they start.

    Args:
        num_embeddings: codes.
        embedding_dim: length of each, the channels of a latent image.
        decay: of the moving averages.
        commitment: weight of the loss that draws vectors to their codes.
        restart_below: a code that stands for fewer vectors a batch starts again.
        epsilon: that keeps a mean of nothing finite.

    Example:
        >>> quantiser = RestartQuantiser(16, 4)
        >>> latent = torch.randn(2, 4, 8, 8, 8)
        >>> quantised, loss = quantiser(latent)
        >>> quantised.shape, quantiser.lookup(quantiser.nearest(latent)).shape
        (torch.Size([2, 4, 8, 8, 8]), torch.Size([2, 4, 8, 8, 8]))
    """

    codes: Tensor
    counts: Tensor
    sums: Tensor
    num_updates: Tensor

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        decay: float = 0.99,
        commitment: float = 0.25,
        restart_below: float = 1.0,
        epsilon: float = 1e-7,
    ) -> None:
        super().__init__()
        self.decay, self.commitment, self.restart_below, self.epsilon = decay, commitment, restart_below, epsilon
        self.register_buffer("codes", torch.randn(num_embeddings, embedding_dim))
        self.register_buffer("counts", torch.ones(num_embeddings))
        self.register_buffer("sums", self.codes.clone())
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.long))

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Return a quantised latent image, whose gradient is that of the image, and the commitment loss.

        Args:
            latent: shape (B, embedding_dim, *spatial).
        """
        vectors = _as_vectors(latent.detach().float())
        if self.training:
            self.update(vectors)
        quantised = self.lookup(self.nearest(latent)).to(latent.dtype)
        loss = self.commitment * F.mse_loss(latent.float(), quantised.float())
        return latent + (quantised - latent).detach(), loss

    def quantise(self, latent: Tensor) -> Tensor:
        """Return a latent image of codes alone."""
        return self.lookup(self.nearest(latent)).to(latent.dtype)

    def nearest(self, latent: Tensor) -> Tensor:
        """Return the number of the nearest code for each vector, int64, shape (B, *spatial)."""
        vectors = _as_vectors(latent.detach().float())
        found = torch.cat([self._nearest(part) for part in vectors.split(max(1, CHUNK // len(self.codes)))])
        return found.view(len(latent), *latent.shape[2:])

    def lookup(self, numbers: Tensor) -> Tensor:
        """Return the codes of a latent image, shape (B, embedding_dim, *spatial)."""
        return self.codes[numbers].movedim(-1, 1)

    @torch.no_grad()
    def update(self, vectors: Tensor) -> None:
        """Move the codes towards the vectors of a batch, shape (N, embedding_dim), those of all processes together."""
        vectors = torch.as_tensor(idist.all_gather(vectors))
        if self.num_updates == 0:
            self._start(torch.ones_like(self.counts, dtype=torch.bool), vectors)
        numbers = torch.cat([self._nearest(part) for part in vectors.split(max(1, CHUNK // len(self.codes)))])
        counts = torch.bincount(numbers, minlength=len(self.codes)).to(self.counts)
        sums = torch.zeros_like(self.sums).index_add_(0, numbers, vectors)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        self._start(self.counts < self.restart_below, vectors)
        self.codes.copy_(self.sums / (self.counts[:, None] + self.epsilon))
        self.num_updates += 1

    def _start(self, which: Tensor, vectors: Tensor) -> None:
        """Let some codes start as random vectors, with a little noise, as there may be fewer vectors than codes."""
        generator = torch.Generator().manual_seed(int(self.num_updates))  # the same in each process, and once resumed
        chosen = torch.randint(len(vectors), (len(which),), generator=generator)
        if len(vectors) >= len(which):
            chosen = torch.randperm(len(vectors), generator=generator)[: len(which)]
        noise = torch.randn(self.codes.shape, generator=generator) * 0.01 / self.codes.shape[1] ** 0.5
        started = vectors[chosen.to(vectors.device)] + noise.to(vectors) * (len(vectors) < len(which))
        self.codes.copy_(torch.where(which[:, None], started, self.codes))
        self.sums.copy_(torch.where(which[:, None], started, self.sums))
        self.counts.masked_fill_(which, 1.0)

    def _nearest(self, vectors: Tensor) -> Tensor:
        # |v - c|^2 without |v|^2, which all codes share
        return torch.addmm(self.codes.square().sum(1), vectors, self.codes.T, beta=1, alpha=-2).argmin(1)


def _as_vectors(latent: Tensor) -> Tensor:
    """Return (B, C, *spatial) as (N, C)."""
    return latent.movedim(1, -1).reshape(-1, latent.shape[1])

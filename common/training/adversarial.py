"""Training a network against critics, and the critics against it."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import ignite.distributed as idist
import torch
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys
from torch import nn
from torch.optim import Optimizer

from .stages import Stage


class AdversarialTrainer(SupervisedTrainer):
    """A trainer whose network also has to satisfy critics, which learn from each of its answers.

    A step of the network comes first, then one of the critics, on the same batch. Several processes average the
    gradients of both, as their wrapper in torch takes neither two calls before a step nor gradients of gradients.

    Args:
        network: see ``SupervisedTrainer``.
        critics: what judges its answers.
        critic_optimizer: of the critics.
        adversarial_loss: with ``of_network`` and ``of_critics``, see ``HingeGANLoss`` and ``WassersteinLoss``.
        start: iterations before the critics begin to learn, and to count.
        num_critic_steps: steps of the critics for each of the network. In the others the inferer is asked for
            ``only_fakes``, without gradients, and the loss that is reported is that of the last step.
        max_norm: of the network's gradients and of the critics'; None does not clip.
        kwargs: see ``SupervisedTrainer``.
    """

    latest_is_best = True
    """What critics say changes its meaning, and the loss alone likes what is smooth better than what looks real."""

    def __init__(
        self,
        *args: Any,
        critics: nn.Module,
        critic_optimizer: Optimizer,
        adversarial_loss: Any,
        start: int = 0,
        num_critic_steps: int = 1,
        max_norm: float | None = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.critics = critics.to(self.state.device)
        self.critic_optimizer, self.adversarial_loss = critic_optimizer, adversarial_loss
        self.start, self.num_critic_steps, self.max_norm = start, num_critic_steps, max_norm
        self.loss = torch.zeros(())
        for module in (self.network, critics):
            share_weights(module)

    @property
    def also_kept(self) -> Mapping[str, Any]:
        """What a checkpoint of the stage holds besides what others do."""
        return {"critics": self.critics, "critic_optimizer": self.critic_optimizer}

    def _iteration(self, engine: Any, batchdata: Mapping[str, Any]) -> Any:
        batch = self.prepare_batch(batchdata, self.state.device, self.non_blocking, **self.to_kwargs)
        inputs, targets, args, kwargs = batch if len(batch) == 4 else (*batch, (), {})
        judged, learns = self.state.iteration > self.start, self.state.iteration % self.num_critic_steps == 0
        mixed = partial(torch.autocast, inputs.device.type, torch.bfloat16, enabled=self.amp)
        self.network.train()
        self.critics.train().requires_grad_(False)
        if learns:
            with mixed():
                pred = self.inferer(inputs, self.network, *args, **kwargs)
                loss = self.loss_function(pred, targets)
                if judged:
                    loss = loss + self.adversarial_loss.of_network(self.critics, pred, targets)
            self._step(self.network, self.optimizer, loss)
            self.loss = loss.detach()
        else:
            with torch.no_grad(), mixed():
                pred = self.inferer(inputs, self.network, *args, **kwargs, only_fakes=True)
        if judged:
            self.critics.requires_grad_(True)
            with mixed():
                critic_loss = self.adversarial_loss.of_critics(self.critics, pred, targets)
            self._step(self.critics, self.critic_optimizer, critic_loss)
        engine.state.output = {CommonKeys.IMAGE: inputs, CommonKeys.LOSS: self.loss}
        engine.fire_event(IterationEvents.MODEL_COMPLETED)  # what decollates waits for it
        return engine.state.output

    def _step(self, module: nn.Module, optimizer: Optimizer, loss: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(module)
        if self.max_norm is not None:
            nn.utils.clip_grad_norm_(module.parameters(), self.max_norm)
        optimizer.step()


class AdversarialStage(Stage):
    """Train one part of a container against critics, which stay in the stage's checkpoints.

    The last epoch that was validated is kept, see ``latest_is_best``.

    Args:
        critics: see ``AdversarialTrainer``.
        adversarial_loss: see ``AdversarialTrainer``.
        start: see ``AdversarialTrainer``.
        max_norm: see ``AdversarialTrainer``.
        kwargs: see ``Stage``.
    """

    def __init__(
        self,
        *args: Any,
        critics: nn.Module,
        adversarial_loss: Any,
        start: int = 0,
        max_norm: float | None = 1.0,
        **kwargs: Any,
    ) -> None:
        self.adversarial = {
            "critics": critics,
            "adversarial_loss": adversarial_loss,
            "start": start,
            "max_norm": max_norm,
        }
        super().__init__(*args, **kwargs)

    def trained(self, module: nn.Module) -> nn.Module:
        """Return the network as it is trained: not wrapped, see ``AdversarialTrainer``."""
        return module

    def make_trainer(self, optimizer: Callable[..., Optimizer], *args: Any, **kwargs: Any) -> AdversarialTrainer:
        """Return the trainer, with an optimiser for the critics too, of the same learning rate."""
        critic_optimizer = optimizer(self.adversarial["critics"].parameters())
        return AdversarialTrainer(*args, **kwargs, critic_optimizer=critic_optimizer, **self.adversarial)


def average_gradients(module: nn.Module) -> None:
    """Let all processes have the mean of their gradients."""
    if idist.get_world_size() == 1:
        return
    for parameter in module.parameters():
        if parameter.grad is not None:
            parameter.grad.copy_(torch.as_tensor(idist.all_reduce(parameter.grad)) / idist.get_world_size())


def share_weights(module: nn.Module) -> None:
    """Let all processes begin with the weights of the first."""
    if idist.get_world_size() == 1:
        return
    for value in module.state_dict().values():
        torch.distributed.broadcast(value, 0)

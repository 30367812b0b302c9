"""Stages of a training: one part of a container after the other, from the others' published weights to its own."""

import atexit
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Events
from ignite.handlers import Checkpoint, EMAHandler, ProgressBar, TerminateOnNan
from ignite.metrics import Loss
from monai.data import CacheDataset, DataLoader, Dataset, DistributedSampler
from monai.data.utils import set_rnd
from monai.engines import Evaluator, SupervisedEvaluator, SupervisedTrainer, Trainer, default_prepare_batch
from monai.handlers import CheckpointLoader, LrScheduleHandler, TensorBoardStatsHandler, ValidationHandler, from_engine
from monai.inferers import Inferer, SimpleInferer
from monai.transforms import Compose
from monai.utils import ensure_tuple, set_determinism
from torch import nn
from torch.optim import Optimizer

from ..checkpoints import load_fitting, load_parts, parts_of, read_data, read_weights, save_on_rank_0
from ..files import locked
from .identity import identity_of

LOCKS = ExitStack()
"""What the training that this process is at holds, see ``Training.take_folder``."""
atexit.register(LOCKS.close)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """What all stages of a training share, each the key of a config of the same name.

    Attributes:
        device: of all networks.
        output_dir: of the logs for TensorBoard, see ``log_dir``.
        ckpt_dir: of the stages' checkpoints, to resume from.
        model_path: file that is published, a raw state dict of the whole container.
        volumes_per_batch: items of a data set in a batch.
        seed: of everything that is drawn.
        val_interval: epochs between validations.
        num_workers: processes that load batches.
        cache_rate: share of a data set that is kept in memory as far as nothing in it is random.
        final_learning_rate: at the end of the cosine that stages fall along.
        amp: mixed precision, bfloat16 on a CPU.
        resume: go on from ``<part>_last.pt`` if there is one, see ``identity_of`` for what it must have in common; a
            finished stage is then loaded and not trained again.
        finetune: start from what fits of the part's weights at ``model_path`` instead of afresh, see ``load_fitting``.
        train_parts: ``auto`` keeps what ``model_path`` already holds of the parts of a ``Stage``; ``all`` trains them.
        begun: parts whose stages this training has begun.
    """

    device: str | torch.device
    output_dir: str
    ckpt_dir: str
    model_path: str
    volumes_per_batch: int
    seed: int = 0
    val_interval: int = 1
    num_workers: int = 0
    cache_rate: float = 1.0
    final_learning_rate: float = 0.0
    amp: bool = False
    resume: bool = False
    finetune: bool = False
    train_parts: str = "all"
    begun: list[str] = field(default_factory=list, init=False)

    def log_dir(self, stage: str) -> str:
        """Return where TensorBoard finds a stage."""
        return str(Path(self.output_dir) / "tensorboard" / stage)

    def checkpoints(self, part: str) -> tuple[Path, Path]:
        """Return the last and the best checkpoint of a part."""
        last, best = (Path(self.ckpt_dir) / f"{part}_{which}.pt" for which in ("last", "best"))
        return last, best

    def take_folder(self) -> None:
        """Keep other trainings out of the folder of checkpoints and off the published file; the first process does so.

        They are let in when this process ends, however it ends, or trains elsewhere.

        Raises:
            RuntimeError: if one is at it.
        """
        LOCKS.close()
        with ExitStack() as taken:
            for name in ("ckpt_dir", "model_path") if idist.get_rank() == 0 else ():
                path = Path(getattr(self, name)).resolve()
                refusal = f"another training is at work on {path}: wait for its end, or set another {name}."
                taken.enter_context(locked(path.with_name(f".{path.name}.lock"), refusal))
            LOCKS.enter_context(taken.pop_all())

    def begin(self, part: str, network: nn.Module) -> None:
        """Begin the stage of a part, without the checkpoints that an earlier training has left of any of them.

        Resumed, this one would take those of later stages for its own. A best one without a last one is nobody's.
        """
        if idist.get_rank() == 0:
            for other in dict(network.named_children()).keys() - set(self.begun):
                last, best = self.checkpoints(other)
                if not self.resume:
                    last.unlink(missing_ok=True)
                if not last.is_file():
                    best.unlink(missing_ok=True)
        self.begun.append(part)
        idist.barrier()

    def distributed(self, module: nn.Module) -> nn.Module:
        """Return a network as it is trained: among several processes it shares their gradients."""
        if idist.get_world_size() == 1:
            return module
        device = torch.device(self.device)
        return nn.parallel.DistributedDataParallel(module, [device] if device.type == "cuda" else None)

    def dataset(self, cases: Sequence[Any], transforms: Sequence[Any]) -> CacheDataset:
        """Return cases as a data set.

        Args:
            cases: items.
            transforms: what is done with each of them.
        """
        return CacheDataset(cases, Compose(transforms), cache_rate=self.cache_rate, runtime_cache=True, progress=False)

    def loader(self, dataset: Dataset, shuffle: bool = False, batch_size: int | None = None) -> DataLoader:
        """Return the batches of a data set; each process has its share of them.

        Args:
            dataset: items.
            shuffle: for training; processes then all have the same number of items.
            batch_size: items in a batch, ``volumes_per_batch`` by default.
        """
        order: dict[str, Any] = {"shuffle": shuffle and len(dataset) > 0}  # where there is nothing, the stage says so
        if idist.get_world_size() > 1:
            order = {"sampler": DistributedSampler(dataset, even_divisible=shuffle, shuffle=shuffle, seed=self.seed)}
        return DataLoader(dataset, self.num_workers, batch_size=batch_size or self.volumes_per_batch, **order)


NEEDS = "anything to learn from"
WITHOUT_BFLOAT16 = ("DEFAULT", "AVX2")
"""Processors, as torch names what they can, that compute with it by detours."""


class Stage:
    """Train one part of a container along a cosine of the learning rate, and publish its best epoch.

    The stage that MONAI's properties and MONAI Label know is not one: its parts stand in the config under their names.

    Args:
        part: name of the submodule.
        network: the container.
        training: what all stages share.
        data: data sets of training and validation.
        loss: that is minimised; its mean over the validation data chooses the epoch that is kept.
        max_epochs: of the training.
        learning_rate: at its start, of Adam.
        batches: how batches become inputs and targets, in training and in validation; ``image`` and ``label`` by
            default.
        inferer: calls the network.
        ema_momentum: of a moving average of the weights, which is then validated and kept, 1 - decay.
        postprocessing: of what is validated, applied to whole batches.
        key_metric: name of a metric that chooses the epoch by its highest value instead of the loss, and what makes it.
        metrics: further ones, by name what makes them.
        needs: see ``run_stage``.
        betas: of Adam.
    """

    def __init__(
        self,
        part: str,
        network: nn.Module,
        training: Training,
        data: Sequence[Dataset],
        loss: nn.Module,
        max_epochs: int,
        learning_rate: float,
        batches: Sequence[Callable] = (default_prepare_batch, default_prepare_batch),
        inferer: Inferer | None = None,
        ema_momentum: float | None = None,
        postprocessing: Any = None,
        key_metric: Mapping[str, Callable[..., Any]] | None = None,
        metrics: Mapping[str, Callable[..., Any]] | None = None,
        needs: str = NEEDS,
        betas: Sequence[float] = (0.9, 0.999),
    ) -> None:
        self.needs = needs
        self.part, self.network, self.training = part, network, training
        self.lr_scheduler: Any
        module = self.trained(network.get_submodule(part))
        self.ema = None if ema_momentum is None else EMAHandler(module, ema_momentum)
        adam = partial(torch.optim.Adam, lr=learning_rate, betas=(betas[0], betas[1]))
        optimizer = adam(module.parameters())
        self.lr_scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, max_epochs, training.final_learning_rate
        )
        common: dict[str, Any] = {"inferer": inferer or SimpleInferer(), "decollate": False}

        def made(metrics: Mapping[str, Callable[..., Any]] | None) -> dict[str, Any]:
            return {name: make(output_transform=_pred_and_label) for name, make in (metrics or {}).items()}

        self.evaluator = SupervisedEvaluator(
            torch.device(training.device),
            training.loader(data[1]),
            self.ema.ema_model if self.ema else module,
            prepare_batch=batches[1],
            postprocessing=postprocessing,
            key_val_metric=made(key_metric) or {f"{part}_val_loss": MeanLoss(loss)},
            metric_cmp_fn=lambda new, best: new > best if key_metric else new < best,
            additional_metrics=made(metrics),
            val_handlers=[Reports(training.log_dir(part))],
            **common,
        )
        self.trainer = self.make_trainer(
            adam,
            training.device,
            max_epochs,
            training.loader(data[0], shuffle=True),
            module,
            optimizer,
            loss,
            prepare_batch=batches[0],
            amp=training.amp,
            train_handlers=[
                ValidationHandler(training.val_interval, self.evaluator),
                LrScheduleHandler(self.lr_scheduler, print_lr=False),
                Reports(training.log_dir(part), f"{part}_loss"),
                SeedEachEpoch(training.seed, data[0]),
            ],
            **common,
        )

    def trained(self, module: nn.Module) -> nn.Module:
        """Return the network of the part as it is trained."""
        return self.training.distributed(module)

    def make_trainer(self, optimizer: Callable[..., Any], *args: Any, **kwargs: Any) -> SupervisedTrainer:
        """Return the trainer.

        Args:
            optimizer: of given parameters, as that of the network.
            args: see ``SupervisedTrainer``.
            kwargs: see ``SupervisedTrainer``.
        """
        return SupervisedTrainer(*args, **kwargs)

    def train(self) -> None:
        """Run the stage, see ``run_stage``."""
        run_stage(
            self.trainer,
            self.evaluator,
            self.lr_scheduler,
            self.network,
            self.part,
            self.training,
            self.ema,
            keep=self.training.train_parts == "auto",
            needs=self.needs,
        )


def run_stage(
    trainer: Trainer,
    evaluator: Evaluator,
    lr_scheduler: Any,
    network: nn.Module,
    part: str | Sequence[str],
    training: Training,
    ema: EMAHandler | None = None,
    keep: bool = False,
    calibrate: Callable[[], None] | None = None,
    needs: str = NEEDS,
) -> None:
    """Train parts of ``network`` and publish their best weights; the others stay as they are in the published file.

    A part that no stage has trained yet is not in it, so that nobody takes it for one that has learnt something.

    What cannot be written in JSON is done here: a handler may not refer to the trainer that owns it (MONAI reports a
    circular reference), and the stages hand over their best weights, not their last.

    Args:
        trainer: engine of the stage; its handlers run the evaluator.
        evaluator: engine whose key metric chooses the best epoch, by its ``metric_cmp_fn``.
        lr_scheduler: of the trainer's optimiser.
        network: container that holds all parts, not wrapped.
        part: name of the submodule that is trained, and of its files ``<part>_last.pt`` and ``<part>_best.pt``; of
            several that are trained together, the first names the files.
        training: what all stages share.
        ema: moving average of the weights; if given, these are validated and kept. Several parts are averaged as the
            ``ModuleDict`` that ``trained_parts`` makes of them.
        keep: do not train what ``model_path`` already holds.
        calibrate: called at the end, with the best weights in ``network``, before they are published.
        needs: what a case must have, in words, for the error where none has it.

    Raises:
        ValueError: if there are no cases, the run would never validate, or never did, a validation has no score, the
            checkpoint of a training that is resumed cannot be read, its best epoch is missing or it was another
            training, or the weights at ``model_path`` do not fit the other parts.
        RuntimeError: if another training uses the same folder or file.
    """
    parts, model_path = ensure_tuple(part), training.model_path
    name, module = parts[0], trained_parts(network, parts)
    if training.val_interval > trainer.state.max_epochs:
        raise ValueError(
            f"val_interval ({training.val_interval}) must be <= max_epochs ({trainer.state.max_epochs}) of {name}: "
            "no validation, no best weights."
        )
    training.take_folder()
    published = read_weights(model_path, parts) if Path(model_path).is_file() else {}
    held = parts_of(published)
    absent, is_there = dict(network.named_children()).keys() - held, held >= set(parts)
    keep &= is_there
    if training.finetune and not is_there:
        raise ValueError(f"finetune needs the weights to start from, expected them at {model_path}, got none.")
    if training.finetune and not keep:
        load_fitting(network, model_path, parts)
    elif published:
        load_parts(network, model_path, leave_out=[*absent, *(() if keep else parts)])
    if keep:
        logger.info(f"{name}: kept as it is in {model_path}; --train_parts all trains it again.")
        return

    engine: Any
    for engine, kind in ((trainer, "training"), (evaluator, "validation")):
        if len(engine.data_loader) == 0:
            raise ValueError(f"{name}: expected {kind} cases with {needs}, got none.")
    training.begin(name, network)
    keep_checkpoints(trainer, evaluator, lr_scheduler, module, name, training, ema)
    if training.amp and torch.device(training.device).type == "cpu":
        if torch.backends.cpu.get_cpu_capability() in WITHOUT_BFLOAT16:
            logger.warning(
                "this processor has no instructions for bfloat16: a step with amp may take ten times as long."
            )
        trainer.inferer = MixedOnCPU(trainer.inferer)  # type: ignore[attr-defined]
    trainer.run()

    idist.barrier()
    _, best = training.checkpoints(name)
    if not best.is_file():
        raise ValueError(f"{name}: the training has ended before it validated an epoch; there is nothing to publish.")
    load_parts(module, best)
    if ema:
        ema.ema_model.load_state_dict(module.state_dict())
    if calibrate is not None:
        calibrate()
    absent -= set(parts)
    trained = {key: value for key, value in network.state_dict().items() if key.split(".")[0] not in absent}
    save_on_rank_0(trained, model_path)
    logger.info(f"{' and '.join(parts)}: the best epoch is in {model_path}.")
    idist.barrier()


def keep_checkpoints(
    trainer: Any,
    evaluator: Evaluator,
    lr_scheduler: Any,
    network: nn.Module,
    name: str,
    training: Training,
    ema: EMAHandler | None,
) -> None:
    """Let a stage keep its last and its best epoch, and go on from the last if it is resumed.

    Args:
        trainer: see ``run_stage``.
        evaluator: see ``run_stage``.
        lr_scheduler: see ``run_stage``.
        network: what is trained, not wrapped.
        name: of the files.
        training: what all stages share.
        ema: see ``run_stage``.
    """
    last, best = training.checkpoints(name)
    sign = 1.0 if evaluator.metric_cmp_fn(1.0, 0.0) else -1.0
    latest = getattr(trainer, "latest_is_best", False)

    def score(engine: Any) -> float:
        metric = evaluator.state.key_metric_name
        if np.isnan(engine.state.metrics[metric]):
            raise ValueError(f"{metric} is NaN, by which no epoch of {name} can be chosen.")
        return trainer.state.epoch if latest else sign * engine.state.metrics[metric]

    keep_best = Checkpoint(
        {"model": ema.ema_model if ema else network},
        lambda content, _: save_on_rank_0(content, best),
        score_function=score,
    )
    evaluator.add_event_handler(Events.COMPLETED, keep_best)

    trainer.add_event_handler(Events.ITERATION_COMPLETED, TerminateOnNan(from_engine("loss", first=True)))
    state = {
        "identity": identity_of(trainer, evaluator, network, training, ema),  # before anything of another one is loaded
        "model": trainer.network,
        "optimizer": trainer.optimizer,
        "lr_scheduler": lr_scheduler,
        "trainer": trainer,
        "keep_best": keep_best,
        **getattr(trainer, "also_kept", {}),
    }
    if ema:
        ema.attach(trainer)
        state["ema"] = ema.ema_model

    def demand_best() -> None:
        if keep_best.last_checkpoint and not best.is_file():
            raise ValueError(f"cannot resume: the best epoch of {name} so far is not there, expected it at {best}.")

    if training.resume and last.is_file():
        read_data(last, "a checkpoint of a training", "; delete the file, or set resume to False")
        CheckpointLoader(str(last), state, map_location=trainer.state.device).attach(trainer)
        trainer.add_event_handler(Events.STARTED, demand_best)
    elif ema:  # a handler may have loaded pretrained weights (MONAI Label adds one) after the average was made
        ema_model, model = ema.ema_model, ema.model
        trainer.add_event_handler(Events.STARTED, lambda: ema_model.load_state_dict(model.state_dict()))
    keep_last = Checkpoint(state, lambda content, _: save_on_rank_0(content, last))
    trainer.add_event_handler(Events.EPOCH_COMPLETED, keep_last)


def trained_parts(network: nn.Module, parts: Sequence[str]) -> nn.Module:
    """Return the part of a container that a stage trains, or several as one module."""
    if len(parts) == 1:
        return network.get_submodule(parts[0])
    return nn.ModuleDict({part: network.get_submodule(part) for part in parts})


class MixedOnCPU(Inferer):
    """Call an inferer with bfloat16 autocast, which MONAI's trainers have on CUDA alone; images come in float32.

    Args:
        inferer: that calls the network.
    """

    def __init__(self, inferer: Inferer) -> None:
        super().__init__()
        self.inferer = inferer

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return what the inferer says."""
        with torch.autocast("cpu", torch.bfloat16):
            pred = self.inferer(inputs, network, *args, **kwargs)
        return pred.float() if isinstance(pred, torch.Tensor) else pred


class WarmUpCosineLR(torch.optim.lr_scheduler.LambdaLR):
    """A learning rate that rises along a line, then falls along a cosine.

    Args:
        optimizer: of one learning rate.
        T_max: epochs in all.
        eta_min: learning rate at the end.
        warm_up: epochs that it rises for.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, warm_up: int = 0) -> None:  # noqa: N803
        lowest = eta_min / optimizer.defaults["lr"]

        def share(epoch: int) -> float:
            if epoch < warm_up:
                return (epoch + 1) / (warm_up + 1)
            along = (epoch - warm_up) / max(T_max - warm_up, 1)
            return lowest + (1 - lowest) * 0.5 * (1 + float(np.cos(np.pi * min(along, 1.0))))

        super().__init__(optimizer, share)


class Reports:
    """Log an engine to the console and to TensorBoard, in the first process: a trainer's loss, an evaluator's metrics.

    Args:
        log_dir: of TensorBoard; it is made when the engine starts.
        loss: what a trainer's loss is called, of each iteration in TensorBoard; it also has a bar. None for an
            evaluator.
    """

    def __init__(self, log_dir: str, loss: str | None = None) -> None:
        self.log_dir, self.loss = log_dir, loss

    def attach(self, engine: Any) -> None:
        """Add the handlers to an engine."""
        if idist.get_rank() > 0:
            return
        named: dict[str, Any] = {} if self.loss is None else {"tag_name": self.loss, "output_transform": _loss}
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._say)
        if self.loss is not None:
            ProgressBar(desc=self.loss.removesuffix("_loss"), disable=None).attach(engine)  # none without a terminal

        def write_events() -> None:
            first_start.remove()
            options = {"iteration_log": self.loss is not None, **named}
            TensorBoardStatsHandler(log_dir=self.log_dir, **options).attach(engine)

        first_start = engine.add_event_handler(Events.STARTED, write_events)  # what is not run leaves no empty file

    def _say(self, engine: Any) -> None:
        state = engine.state
        if self.loss is not None:
            loss = float(torch.as_tensor(_loss(state.output)).detach())
            logger.info(f"{self.loss}: epoch {state.epoch} of {state.max_epochs}, {loss:.4g} at its end")
            return
        numbers = {name: value for name, value in state.metrics.items() if isinstance(value, int | float)}
        if numbers:
            logger.info(", ".join(f"{name} {value:.4g}" for name, value in numbers.items()))


class MeanLoss(Loss):
    """The mean of a loss over all items of an evaluator that does not decollate.

    Args:
        loss_fn: of what the network says and of the target, a tensor or, for noise, a mapping with ``image``.
    """

    def __init__(self, loss_fn: Callable[..., torch.Tensor]) -> None:
        super().__init__(loss_fn, _pred_and_label, _num_items)


class SeedEachEpoch:
    """Seed every generator from (seed, epoch, rank), so that a resumed run draws what an unbroken one draws.

    Args:
        seed: of the training.
        dataset: whose random transforms are seeded.
        follower: what draws by itself; its ``epoch`` is set.
    """

    def __init__(self, seed: int, dataset: Any, follower: Any = None) -> None:
        self.seed, self.dataset, self.follower = seed, dataset, follower

    def attach(self, engine: Trainer) -> None:
        """Add the handler to a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Trainer) -> None:
        """Seed torch, numpy, python and the random transforms of the data set."""
        seed = self.seed + 1000 * engine.state.epoch + idist.get_rank()
        set_determinism(seed)
        set_rnd(self.dataset, seed=seed)
        if self.follower is not None:
            self.follower.epoch = engine.state.epoch


def _pred_and_label(output: Mapping[str, Any]) -> tuple[Any, Any]:
    return output["pred"], output["label"]


def _num_items(target: Any) -> int:
    return len(target["image"] if isinstance(target, Mapping) else target)


def _loss(output: Any) -> Any:
    """Return the loss of an iteration, whose output may be one for each item."""
    return (output[0] if isinstance(output, list) else output)["loss"]

"""A network of one layer against a critic of one layer: what is trained when, kept and resumed."""

import torch
from monai.data import Dataset
from torch import nn

from common.losses.adversarial import HingeGANLoss
from common.networks.parts import NetworkParts
from common.training.adversarial import AdversarialStage
from common.training.stages import Training


class Copying(nn.Module):
    """Answers with images, and with a loss of its own."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv3d(1, 1, 1)

    def forward(self, image):
        return self.layer(image), self.layer.weight.square().sum()


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv3d(1, 1, 1)

    def forward(self, image):
        features = self.layer(image)
        return [features, features.flatten(1).mean(1)]


class Loss(nn.Module):
    def forward(self, pred, target):
        return (pred[0] - target).abs().mean()


def stage(folder, start=0, max_epochs=2, epochs_of_schedule=None, **settings):
    torch.manual_seed(0)
    network = NetworkParts("autoencoder", autoencoder=Copying())
    items = [{"image": torch.full((1, 2, 2, 2), i / 4), "label": torch.full((1, 2, 2, 2), i / 4)} for i in range(4)]
    paths = {"ckpt_dir": str(folder / "checkpoints"), "model_path": str(folder / "model.pt")}
    training = Training("cpu", str(folder), **{**paths, "volumes_per_batch": 2, **settings})
    made = AdversarialStage(
        "autoencoder",
        network,
        training,
        [Dataset(items), Dataset(items)],
        Loss(),
        max_epochs,
        0.05,
        critics=nn.ModuleDict({"volume": Critic()}),
        adversarial_loss=HingeGANLoss(),
        start=start,
        betas=(0.5, 0.9),
    )
    if epochs_of_schedule:
        made.lr_scheduler.T_max = epochs_of_schedule
    return made, network


def weights(module):
    return [p.detach().clone() for p in module.parameters()]


def same(these, those):
    return all(torch.equal(a, b) for a, b in zip(these, those, strict=True))


def test_network_and_critics_learn(tmp_path):
    made, network = stage(tmp_path)
    before = weights(network), weights(made.trainer.critics)
    made.train()
    assert not same(before[0], weights(network))
    assert not same(before[1], weights(made.trainer.critics))


def test_critics_neither_learn_nor_count_before_their_start(tmp_path):
    late, network = stage(tmp_path / "late", start=100)
    before = weights(late.trainer.critics)
    late.train()
    assert same(before, weights(late.trainer.critics))
    early, other = stage(tmp_path / "early", start=0)
    early.train()
    assert not same(weights(network), weights(other))


def test_what_is_published_holds_no_critic_and_the_checkpoint_does(tmp_path):
    stage(tmp_path)[0].train()
    published = torch.load(tmp_path / "model.pt", weights_only=True)
    assert not any("critic" in name or "volume" in name for name in published)
    kept = torch.load(tmp_path / "checkpoints" / "autoencoder_last.pt", weights_only=True)
    assert {"critics", "critic_optimizer"} <= kept.keys()


def test_a_resumed_stage_equals_an_unbroken_one(tmp_path):
    unbroken, network = stage(tmp_path / "a", max_epochs=4)
    unbroken.train()
    stage(tmp_path / "b", max_epochs=2, epochs_of_schedule=4)[0].train()
    resumed, other = stage(tmp_path / "b", max_epochs=4, resume=True)
    resumed.train()
    assert same(weights(network), weights(other))
    assert same(weights(unbroken.trainer.critics), weights(resumed.trainer.critics))


def test_gradients_are_clipped(tmp_path):
    made, network = stage(tmp_path)
    made.trainer.max_norm = 0.0
    before = weights(network)
    made.trainer._step(network, torch.optim.SGD(network.parameters(), 1.0), network(torch.ones(1, 1, 2, 2, 2)).mean())
    assert same(before, weights(network))


def test_the_last_validated_epoch_is_published_whatever_its_loss(tmp_path):
    made, network = stage(tmp_path, max_epochs=5, val_interval=2)
    states = []
    made.evaluator.add_event_handler("COMPLETED", lambda: states.append(weights(network)))
    made.train()
    published = torch.load(tmp_path / "model.pt", weights_only=True)
    assert len(states) == 2
    assert torch.equal(published["autoencoder.layer.weight"], states[-1][0])


def test_critics_may_learn_more_often_than_the_network(tmp_path):
    made, network = stage(tmp_path, max_epochs=1)
    asked, steps = [], []
    made.trainer.num_critic_steps = 2
    made.trainer.inferer = lambda inputs, module, **options: asked.append(options) or module(inputs)
    step = made.trainer._step
    made.trainer._step = lambda module, *args: steps.append(module is network.autoencoder) or step(module, *args)
    made.train()
    assert asked == [{"only_fakes": True}, {}]
    assert steps == [False, True, False]


def test_the_loss_that_is_reported_is_that_of_the_last_step_of_the_network(tmp_path):
    made, _ = stage(tmp_path, max_epochs=2)
    losses = []
    made.trainer.num_critic_steps = 2
    made.trainer.inferer = lambda inputs, module, **options: module(inputs)
    keep = lambda engine: losses.append(float(engine.state.output["loss"]))  # noqa: E731
    made.trainer.add_event_handler("ITERATION_COMPLETED", keep)
    made.train()
    assert losses[0] == 0
    assert losses[1] == losses[2] != losses[3]

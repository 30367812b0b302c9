import re
import traceback

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from common.checkpoints import frozen, load_parts, read_weights, refuse_other_weights, save_atomically
from common.networks.parts import NetworkParts


class Interrupts:
    """Cannot be written: the run is stopped at this point of the file."""

    def __reduce__(self):
        raise KeyboardInterrupt


class Runs:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def network(size=4):
    return nn.ModuleDict({"organ": nn.Linear(2, 2), "diffusion": nn.Linear(size, size)})


def guarded():
    module = nn.Linear(2, 2)
    module.register_load_state_dict_post_hook(refuse_other_weights)
    return module


def saved(path, module=None, **changes):
    """Write the weights of a network, some of them changed or (None) left out, and return the path."""
    weights = {**(module or network()).state_dict(), **{name.replace("__", "."): v for name, v in changes.items()}}
    torch.save({name: value for name, value in weights.items() if value is not None}, path)
    return path


def test_what_is_saved_can_be_read(tmp_path):
    save_atomically({"a": torch.arange(3)}, tmp_path / "model.pt")
    assert torch.equal(read_weights(tmp_path / "model.pt")["a"], torch.arange(3))


def test_the_folder_is_made(tmp_path):
    save_atomically({}, tmp_path / "new" / "er" / "model.pt")
    assert (tmp_path / "new" / "er" / "model.pt").is_file()


def test_a_save_leaves_nothing_but_its_file(tmp_path):
    save_atomically({}, tmp_path / "model.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_an_interrupted_save_leaves_the_old_file(tmp_path):
    save_atomically({"a": torch.ones(1)}, tmp_path / "model.pt")
    with pytest.raises(KeyboardInterrupt):
        save_atomically({"a": torch.zeros(1), "b": Interrupts()}, tmp_path / "model.pt")
    assert read_weights(tmp_path / "model.pt")["a"] == 1


def test_an_interrupted_first_save_leaves_no_file_of_that_name(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        save_atomically({"a": torch.zeros(1), "b": Interrupts()}, tmp_path / "model.pt")
    assert not (tmp_path / "model.pt").exists()


def test_what_an_interrupted_save_left_is_overwritten(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        save_atomically({"a": torch.zeros(1), "b": Interrupts()}, tmp_path / "model.pt")
    save_atomically({"a": torch.ones(1)}, tmp_path / "model.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_weights_of_the_same_network_are_taken():
    module, other = guarded(), guarded()
    module.load_state_dict(other.state_dict())
    assert torch.equal(module.weight, other.weight)


@pytest.mark.parametrize("strict", [True, False])
def test_missing_weights_are_refused(strict):
    module = guarded()
    with pytest.raises(RuntimeError, match=r"these are not weights of this Linear: 1 expected keys are missing"):
        module.load_state_dict({"weight": module.weight}, strict=strict)


@pytest.mark.parametrize("strict", [True, False])
def test_unknown_weights_are_refused(strict):
    module = guarded()
    with pytest.raises(RuntimeError, match=r"0 expected .* and 1 are unknown \['classifier.weight'\]"):
        module.load_state_dict({**module.state_dict(), "classifier.weight": torch.zeros(1)}, strict=strict)


@pytest.mark.parametrize("changed", [{"1.bias": None}, {"1.scale": torch.zeros(1)}], ids=["missing", "unknown"])
def test_a_network_within_another_refuses_too(changed):
    outer = nn.Sequential(nn.Identity(), guarded())
    weights = {name: value for name, value in {**outer.state_dict(), **changed}.items() if value is not None}
    with pytest.raises(RuntimeError, match="these are not weights of this Linear"):
        outer.load_state_dict(weights, strict=False)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("strict", [True, False])
def test_weights_that_are_no_numbers_are_refused(strict, number):
    module = guarded()
    weights = {**module.state_dict(), "bias": torch.tensor([0.0, number])}
    with pytest.raises(RuntimeError, match="bias holds NaN or infinite values"):
        module.load_state_dict(weights, strict=strict)


def test_all_parts_are_loaded(tmp_path):
    published, loaded = network(), network()
    load_parts(loaded, saved(tmp_path / "model.pt", published))
    assert all(torch.equal(value, published.state_dict()[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"diffusion__weight": torch.zeros(3, 3)},
            r"expected diffusion.weight of shape \(4, 4\), got \(3, 3\); these are weights of another size or bundle",
        ),
        ({"organ__bias": None}, r"expected organ.bias of shape \(2,\), got nothing"),
        (
            {"classifier__weight": torch.zeros(1)},
            r"expected weights of this bundle, got 1 unknown ones \(classifier.weight",
        ),
        (
            {"organ__bias": torch.tensor([0.0, float("nan")])},
            "expected finite weights, got NaN or infinite values in organ.bias",
        ),
        (
            {"organ__weight": torch.tensor([[0.0, -float("inf")], [0.0, 0.0]])},
            "expected finite weights, got NaN or infinite values in organ.weight",
        ),
        (
            {"organ__weight": torch.ones(2, 2, dtype=torch.int64)},
            "expected organ.weight to hold floating numbers, got torch.int64",
        ),
        ({"organ__bias": torch.tensor([True, False])}, "expected organ.bias to hold floating numbers, got torch.bool"),
    ],
    ids=["other size", "missing", "unknown", "nan", "infinite", "whole numbers", "booleans"],
)
def test_weights_that_do_not_fit_are_refused_with_file_and_reason(tmp_path, changes, reason):
    path = saved(tmp_path / "model.pt", **changes)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}: {reason}"):
        load_parts(network(), path)


def test_weights_that_are_refused_change_nothing(tmp_path):
    module = network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(ValueError, match=r"diffusion.bias"):
        load_parts(module, saved(tmp_path / "model.pt", diffusion__bias=None))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_counter_does_not_take_fractions(tmp_path):
    torch.save({**nn.BatchNorm2d(2).state_dict(), "num_batches_tracked": torch.tensor(0.5)}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"expected num_batches_tracked to hold whole numbers, got torch.float32"):
        load_parts(nn.BatchNorm2d(2), tmp_path / "model.pt")


def test_weights_may_have_another_precision(tmp_path):
    published = network()
    loaded = network()
    load_parts(loaded, saved(tmp_path / "model.pt", published.half()))
    assert loaded["organ"].weight.dtype == torch.float32
    assert torch.equal(loaded["organ"].weight, published["organ"].weight.float())


def test_what_a_fit_fills_may_be_nan(tmp_path):
    module = network()
    for name in ("threshold", "threshold_of_another_kind"):
        module["organ"].register_buffer(name, torch.tensor(float("nan")))
    load_parts(module, saved(tmp_path / "model.pt", module))
    assert module["organ"].threshold_of_another_kind.isnan()


def test_a_part_that_is_left_out_stays_as_it_is(tmp_path):
    module = network()
    before = module["diffusion"].weight.clone()
    load_parts(module, saved(tmp_path / "model.pt"), leave_out=["diffusion"])
    assert torch.equal(module["diffusion"].weight, before)


def test_beside_a_part_that_is_left_out_the_others_are_loaded(tmp_path):
    published, module = network(size=7), network()
    load_parts(module, saved(tmp_path / "model.pt", published), leave_out=["diffusion"])
    assert torch.equal(module["organ"].weight, published["organ"].weight)


@pytest.mark.parametrize(("theirs", "ours"), [({"noise_level": 300}, {}), ({}, {"noise_level": 300})])
def test_what_a_threshold_was_fitted_with_becomes_what_the_file_says(tmp_path, theirs, ours):
    published, module = (NetworkParts("diffusion", diffusion=nn.Linear(2, 2)) for _ in range(2))
    published.set_threshold(1.0, theirs)
    module.set_threshold(2.0, ours)
    load_parts(module, saved(tmp_path / "model.pt", published))
    assert module.thresholds == [(1, theirs)]


def test_weights_of_old_versions_are_loaded(tmp_path):
    published, module = (NetworkParts("diffusion", diffusion=nn.Linear(2, 2)) for _ in range(2))
    module.set_threshold(2.0, {"noise_level": 300})
    load_parts(module, saved(tmp_path / "model.pt", published, threshold_settings=None))
    assert [settings for _, settings in module.thresholds] == [{}]


@pytest.mark.parametrize(
    "changes",
    [
        {"diffusion__weight": torch.zeros(3, 3)},
        {"diffusion__weight": None, "diffusion__bias": None},
        {"diffusion__scale": torch.zeros(1)},
        {"diffusion__weight": torch.full((4, 4), float("nan"))},
        {"diffusion__weight": torch.ones(4, 4, dtype=torch.int64)},
    ],
    ids=["other size", "missing", "unknown", "nan", "whole numbers"],
)
def test_a_part_that_is_left_out_may_be_anything_in_the_file(tmp_path, changes):
    module = network()
    path = saved(tmp_path / "model.pt", **changes)
    load_parts(module, path, leave_out=["diffusion"])
    assert torch.equal(module["organ"].weight, read_weights(path, ["diffusion"])["organ.weight"])


def test_weights_that_are_not_there_are_said_to_be_trained_first(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weights at .*model.pt: train the bundle, or set model_path"):
        read_weights(tmp_path / "model.pt")


def write_cut_off(path):
    path.write_bytes(saved(path).read_bytes()[:300])


def write_other_objects(path):
    torch.save({"a": torch.zeros(1), "b": Runs(path.with_name("ran"))}, path)


def write_without_checksums(path):
    torch.save({"a": torch.zeros(1)}, path, _use_new_zipfile_serialization=False)


UNREADABLE = {
    "cut off": write_cut_off,
    "empty": lambda path: path.write_bytes(b""),
    "a web page": lambda path: path.write_text("<html>404</html>"),
    "other objects": write_other_objects,
    "without checksums": write_without_checksums,
}


@pytest.mark.parametrize("write", UNREADABLE.values(), ids=UNREADABLE)
def test_a_file_that_holds_no_weights_is_named(tmp_path, write):
    write(tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model.pt: expected a file of weights \(tensors only\)"):
        read_weights(tmp_path / "model.pt")


@pytest.mark.parametrize("name", ["a web page", "other objects"])
def test_the_reason_is_one_sentence_without_torchs_advice(tmp_path, name):
    UNREADABLE[name](tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model.pt") as refused:
        read_weights(tmp_path / "model.pt")
    assert not re.search(r"\n|\x1b|weights_only|trust", str(refused.value))


def test_the_reason_is_given_for_an_empty_file_too(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"cannot be read: \w+"):
        read_weights(tmp_path / "model.pt")


def test_code_in_a_file_of_weights_is_not_run(tmp_path):
    write_other_objects(tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model.pt") as raised:
        read_weights(tmp_path / "model.pt")
    assert "set to `False`" not in "".join(traceback.format_exception(raised.value))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"model": {"a": torch.zeros(1)}}], ids=["list", "nested"])
def test_a_file_of_tensors_that_is_no_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model.pt: expected a raw state dict of tensors"):
        read_weights(tmp_path / "model.pt")


def test_weights_of_which_a_byte_is_damaged_are_refused(tmp_path):
    path, weight = tmp_path / "model.pt", torch.arange(1000.0)
    torch.save({"a": weight}, path)
    content = bytearray(path.read_bytes())
    content[content.index(weight[500:510].numpy().tobytes()) + 2] ^= 1
    path.write_bytes(content)
    assert not torch.equal(torch.load(path, weights_only=True)["a"], weight)  # torch has not seen it
    with pytest.raises(ValueError, match=r"model.pt: the file is damaged"):
        read_weights(path)


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 7))
def test_no_damaged_bit_changes_weights_unseen(tmp_path_factory, place, bit):
    path = tmp_path_factory.getbasetemp() / "damaged.pt"
    torch.save({"a": torch.arange(30.0), "b": torch.arange(9)}, path)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    try:
        weights = read_weights(path)
    except ValueError:
        return
    assert torch.equal(weights["a"], torch.arange(30.0))
    assert torch.equal(weights["b"], torch.arange(9))


def test_a_frozen_container_has_its_weights_and_learns_nothing(tmp_path):
    path = saved(tmp_path / "model.pt", network())
    made = frozen(network(), path)
    assert torch.equal(made["organ"].weight, torch.load(path)["organ.weight"])
    assert not made.training
    assert not any(weight.requires_grad for weight in made.parameters())

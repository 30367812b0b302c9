import json
import subprocess
import sys

import pytest

from ci import ROOT, bundle_names
from common import options
from common.options import OPTIONS, check_command_line, options_of, refuse_typed, refuse_value

CONFIGS = sorted(
    path for path in (ROOT / "bundles").glob("*/configs/*.json") if path.stem not in ("metadata", "logging")
)
EXPRESSIONS = ("dataset_dir", "output_dir", "ckpt_dir", "model_path", "device", "split", "num_channels")
"""Options whose values are expressions in the configs."""


def is_part(value):
    """Return whether a value is made of components, references or expressions."""
    values = value if isinstance(value, list) else [value]
    return any(isinstance(each, dict) or (isinstance(each, str) and each[:1] in ("$", "@")) for each in values)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parts[-3]}/{path.stem}")
def test_every_key_at_the_top_of_a_config_has_an_entry_that_takes_its_value(path):
    config, known = json.loads(path.read_text()), options_of(path.parents[1])
    for key, value in {**config, **config.get("displayable_configs", {})}.items():
        if key in EXPRESSIONS or not (is_part(value) or key.startswith("_") or "::" in key):
            assert key in known, f"{key} has no entry"
            refuse_value(key, value, known[key])


@pytest.mark.parametrize("bundle", bundle_names())
def test_a_bundle_names_options_of_its_own_that_others_do_not_have(bundle):
    folder = ROOT / "bundles" / bundle
    own = json.loads((folder / "configs/metadata.json").read_text())["options"]
    assert not set(own) & set(OPTIONS)
    text = "".join(path.read_text() for path in folder.glob("configs/*.json") if path.stem != "metadata")
    assert [key for key in own if f'"{key}"' not in text] == []


BUNDLE = next(
    path.parents[1]
    for path in CONFIGS
    if path.stem == "inference" and {"translator", "heun", "sequences"} <= json.loads(path.read_text()).keys()
)
"""One that translates images."""


def typed(*arguments, configs=("inference",)):
    files = [str(BUNDLE / "configs" / f"{name}.json") for name in configs]
    refuse_typed(["run", "--config_file", str(files), *arguments], options_of(BUNDLE))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--num_inference_steps", "5"],
        ["--num_inference_steps=5"],
        ["--guidance_scale", "-3"],
        ["--amp"],
        ["--noamp"],
        ["--device", "cpu"],
        ["--output_dir", "./20241129"],
        ["--output_dir", "$@bundle_root + '/1'"],
        ["--translator#noise_level", "3"],
        ["--translator::noise_level", "3"],
        ["--grid::max_voxels", "3"],
        ["--preprocessing::transforms::0::keys", "image"],
        ["--evaluator::val_handlers", "@handlers"],
        ["--patch_size", "(64, 64)"],
        ["--slice_range", "None"],
        ["--tracking", "mlflow", "--experiment_name", "x", "--tracking_uri", "file:///x"],
        ["--init_id", "initialize", "--logging_file", "False", "--meta_file", "x.json"],
        ["--displayable_configs::seed", "3"],
    ],
    ids=" ".join,
)
def test_what_is_right_is_accepted(arguments):
    typed(*arguments)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--num_inference_stepz", "5"], "--num_inference_stepz is no option; did you mean --num_inference_steps?"),
        (["--num_inference_steps", "abc"], "num_inference_steps .* must be a whole number, got 'abc'"),
        (["--num_inference_steps", "-3"], "num_inference_steps .* must be at least 1, got -3"),
        (["--num_inference_steps", "2.5"], "must be a whole number, got '2.5'"),
        (["--percentile", "200"], "must be from 0 to 100, got 200"),
        (["--amp", "yes"], "amp .* must be True or False, got 'yes'"),
        (["--organ_source", "liver"], "must be one of auto, file, network, totalsegmentator, got 'liver'"),
        (["--device", "cuda:99"], "device must be one that is there, cpu.*, got 'cuda:99'"),
        (["--device", "gpu"], "device must be one that is there, cpu.*, got 'gpu'"),
        (["--dataset_dir", "/nowhere"], "dataset_dir .* must exist, got '/nowhere'"),
        (["--output_dir", __file__], "output_dir .* must be a folder that can be made, .*: .* is a file"),
        (["--output_dir", f"{__file__}/out"], "output_dir .* must be a folder that can be made, .*: .* is a file"),
        (["--output_dir", "20241129"], "output_dir must be a path, and .* the number 20241129: write ./ before it"),
        (["--output_dir", "2024_11_28"], "output_dir must be a path, and .* the number 20241128"),
        (["--output_dir", "1e3"], "output_dir must be a path, and .* the number 1000"),
        (["--title", "2024"], "title must be a str, and .* the number 2024: quote it twice"),
        (["--voxel_mm", "[1, -2, 3]"], "must be from 0|at least 0"),
        (["--sequences", "flair"], "must be a list of str or None, got 'flair'"),
        (["--translator::noise_levl", "3"], "no option of translator; did you mean --translator::noise_level?"),
        (["--preprocessing::transforms::99::keys", "image"], "no option of preprocessing::transforms::99"),
        (["--nope::x", "1"], "--nope::x is no option of nope"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_refused_in_one_sentence(arguments, reason):
    with pytest.raises(ValueError, match=reason) as refused:
        typed(*arguments)
    assert str(refused.value).isprintable()


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_work(monkeypatch, tmp_path):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ValueError, match=f"must be a folder that can be made, .*: {tmp_path} cannot be written to"):
        typed("--output_dir", str(tmp_path / "new" / "out"))


def test_keys_of_overlays_are_known_where_they_are_given():
    typed("--fit_threshold", "True", configs=("inference", "evaluate"))
    with pytest.raises(ValueError, match="--fit_threshold is no option"):
        typed("--fit_threshold", "True")


def test_a_file_of_arguments_is_checked_too(tmp_path):
    file = tmp_path / "arguments.json"
    config = str(BUNDLE / "configs/inference.json")
    file.write_text(json.dumps({"config_file": config, "sead": 3}))
    with pytest.raises(ValueError, match="--sead is no option; did you mean --seed"):
        refuse_typed(["run", "--args_file", str(file)], OPTIONS)


def test_from_python_nothing_is_checked(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pytest", "--num_inference_stepz", "5"])
    hook = sys.excepthook
    check_command_line(str(BUNDLE))
    assert sys.excepthook is hook


def shown(capsys, error, debug=False):
    try:
        raise RuntimeError("Failed to instantiate component") from error
    except RuntimeError as raised:
        options._show(debug, type(raised), raised, raised.__traceback__)
    return capsys.readouterr().err.splitlines()


def test_the_reason_is_the_last_line_and_the_only_one_unless_it_is_a_fault(capsys):
    assert shown(capsys, ValueError("a.nii: expected x,\ngot y.")) == ["a.nii: expected x, got y."]
    assert shown(capsys, ValueError("x"), debug=True)[-2:] == ["RuntimeError: Failed to instantiate component", "x"]
    lines = shown(capsys, TypeError("len of None"))
    assert (lines[0], lines[-1]) == ("TypeError: len of None", "len of None")


@pytest.mark.slow
@pytest.mark.parametrize(
    "launch", [[], ["torch.distributed.run", "--nproc_per_node=1", "-m"]], ids=["python", "torchrun"]
)
def test_a_mistyped_option_ends_a_run_with_the_reason_alone(tmp_path, launch):
    config = BUNDLE / "configs/inference.json"
    command = [*launch, "monai.bundle", "run", "--config_file", config, "--output_dir", tmp_path, "--sead", "3"]
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    reason = "--sead is no option; did you mean --seed?"
    assert done.returncode == 1
    assert reason in done.stderr.splitlines()
    assert launch or done.stderr.splitlines()[-1] == reason

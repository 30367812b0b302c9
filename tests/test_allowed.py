"""Hostile bundles are refused before anything of them runs, and what people write is let through."""

import json
import zipfile

import pytest
from monai.bundle import ConfigParser
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS

from ci import ROOT, bundle_names, verify_bundle
from ci.allowed import refusals
from ci.pack_bundle import pack

LOADER = {"_target_": "LoadImage", "file": "MARK", "mode": "w"}
RUN_CODE = {
    "a target of os": {"_target_": "os.system", "command": "touch MARK"},
    "a target of subprocess": {"_target_": "subprocess.getoutput", "cmd": "touch MARK"},
    "a target of builtins": {"_target_": "builtins.open", "file": "MARK", "mode": "w"},
    "a target without a module": {"_target_": "open", "file": "MARK", "mode": "w"},
    "a target by a macro": {"_target_": "%system", "command": "touch MARK"},
    "a target by a reference": {"_target_": "@system", "command": "touch MARK"},
    "a target by an expression": {"_target_": "$@system", "command": "touch MARK"},
    "a target of a module in a listed one": {"_target_": "monai.data.utils.os.system", "command": "touch MARK"},
    "a reader by its name": [LOADER | {"reader": "io.open"}],
    "a reader by a reference": [LOADER | {"reader": "@opens"}],
    "a reader by an expression": [LOADER | {"reader": "$'io.' + 'open'"}],
    "a reader by a function": [LOADER | {"reader": {"_target_": "monai.data.utils.no_collation", "x": "io.open"}}],
    "__import__": "$__import__('os').system('touch MARK')",
    "eval": '$eval(\'open("MARK", "w")\')',
    "exec": '$exec(\'open("MARK", "w")\')',
    "open": "$open('MARK', 'w')",
    "getattr": "$getattr(monai.utils.misc.os, 'system')('touch MARK')",
    "os": "$os.system('touch MARK')",
    "os in other letters": "$ᵒs.system('touch MARK')",
    "os in torch": "$torch.os.system('touch MARK')",
    "os in monai": "$monai.utils.misc.os.system('touch MARK')",
    "os by a macro of the imports": ["%imports::1", "$@hostile::0.system('touch MARK')"],
    "os by MONAI's name for references": "$__local_refs['imports::1'].system('touch MARK')",
    "a module as a value": ["$torch", "$@hostile::0.os.system('touch MARK')"],
    "a frame": "$@network.parameters().gi_frame.f_builtins['open']('MARK', 'w')",
    "a lambda that opens": "$(lambda: open('MARK', 'w'))()",
    "a lambda with a default": "$lambda x=open('MARK', 'w'): x",
    "a comprehension that opens": "$[open(x, 'w') for x in ['MARK']]",
    "a filter that opens": "$[x for x in @marks if open(x, 'w')]",
    "a generator": "$list(open(x, 'w') for x in ['MARK'])",
    "an f-string": '$f\'{open("MARK", "w")}\'',
    "a walrus": "$(mark := open('MARK', 'w'))",
    "arguments in a list": "$open(*['MARK', 'w'])",
    "arguments in a dictionary": "$open(**{'file': 'MARK', 'mode': 'w'})",
    "a module by a property": [
        {"_target_": "DataLoader", "dataset": [0], "num_workers": 1, "multiprocessing_context": "fork"},
        "$@hostile::0.multiprocessing_context.reducer.os.system('touch MARK')",
    ],
    "attributes by their names": [
        {"_target_": "torch.nn.cpp.OrderedDictWrapper", "cpp_module": "@network", "attr": "__init__"},
        {"_target_": "torch.nn.cpp.OrderedDictWrapper", "cpp_module": "$@hostile::0.cpp_dict", "attr": "__globals__"},
        "$@hostile::1.cpp_dict['torch'].os.system('touch MARK')",
    ],
    "a file of bytes": "$@tensor.numpy().tofile('MARK')",
    "a relative id": {"a": {"x": [0]}, "a and open('MARK', 'w') and @hostile::a": {"y": "$@::x"}},
    "a description": {"_target_": "torch.nn.ReLU", "_desc_": "$open('MARK', 'w')"},
    "a switch": {"_target_": "torch.nn.ReLU", "_disabled_": "$open('MARK', 'w')"},
    "a requirement": {"_target_": "torch.nn.ReLU", "_requires_": ["$open('MARK', 'w')"]},
}
"""Values that make a file as soon as MONAI evaluates them, by what is hostile in them."""

REFUSED = {
    "pickle": {"_target_": "pickle.loads"},
    "torch.hub": {"_target_": "torch.hub.load", "repo_or_dir": "x"},
    "torch.load": {"_target_": "torch.load", "f": "x.pt"},
    "torch.load in an expression": "$torch.load('x.pt', weights_only=False)",
    "torch.serialization": "$torch.serialization.load('x.pt', weights_only=False)",
    "numpy's pickle": "$np.load('x.npy', allow_pickle=True)",
    "a library": "$torch.ops.load_library('x.so')",
    "C++": {"_target_": "torch.utils.cpp_extension.load_inline", "name": "x"},
    "processes": {"_target_": "ignite.distributed.launcher.Parallel"},
    "code from the network": {"_target_": "PerceptualLoss", "spatial_dims": 2},
    "a download": {"_target_": "monai.apps.utils.download_url", "url": "https://example.org"},
    "a command of MONAI": {"_target_": "run_cmd", "cmd_list": ["x"]},
    "imports by name": {"_target_": "monai.utils.module.optional_import", "module": "os"},
    "imports by name in a listed module": {"_target_": "monai.networks.nets.flexible_unet.locate", "path": "os"},
    "another config": {"_target_": "monai.bundle.scripts.run", "config_file": "x.json"},
    "a parser of configs": {"_target_": "ConfigParser"},
    "configs in common": {"_target_": "common.converters.convert", "config_file": "x.json"},
    "any text in a file": {"_target_": "common.files.write_text", "path": "x.py", "text": ""},
    "pickled arrays": [{"_target_": "LoadImage", "allow_pickle": True}],
    "a pickled cache": {"_target_": "PersistentDataset", "data": []},
    "a module": {"_target_": "torch.nn"},
    "a target that is not there": {"_target_": "common.paths.nothing"},
    "a target that is no name": {"_target_": {"_target_": "torch.nn.ReLU"}},
    "a target with __": {"_target_": "common.phantoms.__main__"},
    "the debugger": {"_target_": "torch.nn.ReLU", "_mode_": "debug"},
    "the debugger's flag": {"_target_": "torch.nn.ReLU", "_debug_": True},
    "a mode by a reference": {"_target_": "torch.nn.ReLU", "_mode_": "@text"},
    "a reader that is called": [{"_target_": "LoadImage", "_mode_": "callable"}],
    "a reader in an expression": "$monai.transforms.LoadImage('subprocess.Popen')",
    "a reference to an import": "$@imports::1.system('touch MARK')",
    "a reference to all imports": ["@imports", "$@hostile::0[1].system('touch MARK')"],
    "a reference to the metadata": "$@_meta_['imports'][0].system('touch MARK')",
    "an import elsewhere": "$import os",
    "a format string": "$'{0.weight}'.format(@network)",
    "a format string by a reference": "$@text.format(@network)",
    "a private attribute": "$@network._modules",
    "a class of an object": "$@network.__class__",
    "a lambda with an attribute": "$lambda x: x.run()",
    "a lambda in a lambda": "$lambda x: lambda y: y",
    "a lambda that calls what it gets": "$lambda len: len(0)",
    "a comprehension of something else": "$[x for x in @network.parameters() if x]",
    "a comprehension that changes": "$[x[0] for x in @marks]",
    "an attribute of a number": "$(1).real",
    "the environment": "$os.environ",
    "another variable of the environment": "$os.environ['HOME']",
    "a name that nobody lists": "$network",
    "an unfinished expression": "$torch.device(",
    "a long expression": "$" + "(" * 600 + ")" * 600,
    "a macro of another folder": "%/etc/other.json::key",
    "a macro of a folder above": "%../other.json::key",
    "a macro of a folder by a relative id": {"/etc/other.json": {"x": "%::y"}},
    "a macro of everything": "%",
}
"""Further values, by what is hostile in them."""

KEYS = {
    "a target apart": ("x::_target_", "torch.nn.ReLU"),
    "a target that is added": ("+x", {"_target_": "torch.nn.ReLU"}),
    "a mode in a list": ("x::0::_mode_", "callable"),
    "a reader apart": ("x::0::reader", "subprocess.Popen"),
    "an import of something else": ("imports", ["$import subprocess"]),
    "an import of a part": ("imports", ["$from os import system"]),
    "an import under another's name": ("imports", ["$import os as torch"]),
    "an import under its own name": ("imports", ["$import os as o"]),
    "more than an import": ("imports", ["$import os; os.system('touch x')"]),
    "no import": ("imports", ["$open('x')"]),
}
"""Keys at the top with what they hold, by what is hostile in them."""

FILES = {
    "configs/metadata.json": '{"x": "$open()"}',
    "configs/tracking.json": '{"handlers_id": {}, "configs": {"trainer": {"_target_": "os.system"}}}',
    "demo/dataset.json": '{"training": ["$open()"]}',
    "configs/x.JSON": '{"x": "$open()"}',
    "configs/same.json": '{"x": 0, "x": 1}',
    "configs/mark.json": '\ufeff{"x": 0}',
    "configs/deep.json": "[" * 10**5,
    "configs/deeper.json": '{"x":' * 900 + '"$open()"' + "}" * 900,
    "configs/cut.json": '{"x": ',
    "configs/x.yaml": "x: $open()",
    "torch.py": "",
    "docs/torch.cpython-311-x86_64-linux-gnu.so": "",
    "scripts/own.py": "",
    "scripts/__pycache__/__init__.cpython-311.pyc": "",
    "configs/logging.conf": "[handler_x]\nclass=__import__('os').system('touch x')\n",
    "configs/other.conf": "[handler_x]\nargs=(__import__('os').system('touch x'),)\n",
    "configs/file.conf": "[handler_x]\nclass=FileHandler\n",
    "configs/import.conf": "[formatter_x]\nclass=os.system\n",
    "configs/kwargs.conf": "[handler_x]\nkwargs={}\n",
    "configs/defaults.conf": "[formatter_x]\ndefaults=exit()\n",
    "configs/no.conf": "class=StreamHandler",
}
"""Files that are hostile or cannot be read, and what they hold."""

bundles = pytest.mark.parametrize("bundle", bundle_names())


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "bundle"


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def config(value, mark):
    """Return a config that evaluates a value when a workflow is initialised."""
    content = {
        "imports": ["$import torch", "$import os"],
        "network": {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1},
        "tensor": "$torch.tensor([1])",
        "marks": ["MARK"],
        "system": "os.system",
        "opens": "io.open",
        "text": "{0.weight}",
        "hostile": value,
        "initialize": ["$@hostile"],
    }
    return json.loads(json.dumps(content).replace("MARK", str(mark)))


def said_of(folder, capsys):
    """Return what is said of a bundle that is refused."""
    with pytest.raises(SystemExit) as stopped:
        verify_bundle.verify(str(folder))
    assert stopped.value.code == 1
    return capsys.readouterr().out


@pytest.mark.parametrize("kind", RUN_CODE)
def test_monai_would_run_it(tmp_path, kind):
    ConfigParser(config(RUN_CODE[kind], tmp_path / "mark")).get_parsed_content("hostile")
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("kind", RUN_CODE | REFUSED)
def test_a_hostile_value_is_refused_with_its_file_and_key_and_is_not_evaluated(folder, capsys, kind):
    write(folder, "configs/inference.json", config((RUN_CODE | REFUSED)[kind], folder / "mark"))
    assert "configs/inference.json: hostile" in said_of(folder, capsys)
    assert not (folder / "mark").exists()


@pytest.mark.parametrize("kind", KEYS)
def test_a_hostile_key_is_refused_with_its_file(folder, capsys, kind):
    key, value = KEYS[kind]
    write(folder, "configs/overlay.json", {key: value})
    assert f"configs/overlay.json: {key}" in said_of(folder, capsys)


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_is_refused(folder, capsys, name):
    write(folder, name, FILES[name])
    assert f"{name}: " in said_of(folder, capsys)


def test_a_refusal_shows_the_expression_and_gives_a_reason(folder, capsys):
    write(folder, "configs/inference.json", {"sizes": [1, "$open('x')"]})
    assert """configs/inference.json: sizes::1: "$open('x')": a call of open""" in said_of(folder, capsys)


def test_a_refused_bundle_is_not_checked_further(folder, capsys):
    write(folder, "configs/inference.json", {"x": "$open('x')"})
    assert len(said_of(folder, capsys).splitlines()) == 2


def test_a_link_out_of_the_bundle_is_refused(folder, tmp_path):
    (tmp_path / "torch").mkdir()
    folder.mkdir()
    (folder / "torch").symlink_to(tmp_path / "torch")
    assert refusals(folder) == ["torch: a link that leads out of the bundle"]


@bundles
def test_our_bundles_may_be_run(bundle):
    assert refusals(ROOT / "bundles" / bundle) == []


@bundles
def test_a_packed_bundle_may_be_run(tmp_path, bundle):
    with zipfile.ZipFile(pack(bundle, str(tmp_path))) as archive:
        archive.extractall(tmp_path)
    assert refusals(tmp_path / bundle) == []


def test_a_packed_bundle_with_other_python_is_refused(tmp_path):
    name = bundle_names()[0]
    with zipfile.ZipFile(pack(name, str(tmp_path))) as archive:
        archive.extractall(tmp_path)
    (tmp_path / name / "scripts" / "common" / "paths.py").write_text("")
    (refused,) = refusals(tmp_path / name)
    assert refused.startswith("scripts/common/paths.py: Python")


@bundles
def test_numbers_may_be_changed(folder, bundle):
    for path in (ROOT / "bundles" / bundle / "configs").glob("*.json"):
        content = json.loads(path.read_text(), parse_int=lambda n: 2 * int(n) + 1, parse_float=lambda x: 2 * float(x))
        write(folder, f"configs/{path.name}", content)
    assert refusals(folder) == []


@pytest.mark.parametrize(
    "target",
    [
        "DiceFocalLoss",
        "monai.losses.DiceFocalLoss",
        "SwinUNETR",
        "monai.metrics.HausdorffDistanceMetric",
        "monai.data.list_data_collate",
        "MLFlowHandler",
        "torch.nn.L1Loss",
        "torch.nn.functional.relu",
        "torch.optim.SGD",
        "torch.optim.Adafactor",
        "torch.utils.data.ConcatDataset",
        "ignite.metrics.MeanAbsoluteError",
        "common.losses.vae.VAELoss",
        "scripts.common.losses.vae.VAELoss",
    ],
)
def test_another_target_of_monai_torch_ignite_or_common_may_be_called(folder, target):
    write(folder, "configs/overlay.json", {"x": {"_target_": target, "y": 1}, "z": [{"_target_": target}]})
    assert refusals(folder) == []


def test_an_overlay_of_a_user_may_be_run(folder):
    overlay = {
        "_desc_": "100 % of the cases, as in issue #12",
        "+imports": ["$import torch.distributed as dist", "$import ignite"],
        "learning_rate": 0.01,
        "weights": "@train::weights",
        "train::trainer::max_epochs": "$2 * len(@cases) // 3",
        "translator::_mode_": "callable",
        "copy": "%train::optimizer",
        "device": "$torch.device('cuda', int(os.environ['LOCAL_RANK']))",
        "dtype": "$torch.float16 if torch.cuda.is_available() else torch.float32",
        "largest": "$sorted(@cases, key=lambda case: len(case['image']))[-1]",
        "labelled": "$[case for case in @cases if 'label' in case and len(case['image']) > 1]",
        "encoder": "$@network.encoder.blocks[0].to(@device).parameters()",
        "loss": "$monai.losses.DiceLoss(sigmoid=True)",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "image", "reader": "ITKReader"},
            {"_target_": "LoadImaged", "keys": "label", "reader": {"_target_": "monai.data.PILReader"}},
            {"_target_": "SaveImaged", "keys": "pred", "writer": "NibabelWriter"},
        ],
        "initialize": ["$monai.utils.set_determinism(@seed)", "$dist.init_process_group('gloo')"],
    }
    write(folder, "configs/overlay.json", overlay)
    assert refusals(folder) == []


def test_a_macro_of_another_config_of_the_bundle_may_be_used(folder):
    write(folder, "configs/other.json", {"loss": {"_target_": "torch.nn.L1Loss"}})
    write(folder, "configs/overlay.json", {"loss": f"%{folder}/configs/other.json::loss"})
    assert refusals(folder) == []


def test_monais_own_settings_of_tracking_may_be_used(folder):
    write(folder, "configs/tracking.json", DEFAULT_MLFLOW_SETTINGS)
    assert refusals(folder) == []

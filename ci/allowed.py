"""What the configs of a bundle may say: they are read here, and nothing of them is evaluated.

A config is a program: MONAI imports and calls its targets and evaluates its ``$`` expressions. What the lists below do
not name is refused. They keep configs from code that is not this collection's, MONAI's, torch's or ignite's, but are no
sandbox: what is allowed reads and writes the files that a config names, and takes what time and memory it likes.
"""

import ast
import configparser
import inspect
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.machinery import all_suffixes
from pathlib import Path
from pydoc import locate
from typing import Any

from monai.bundle import ComponentLocator, ConfigParser, ReferenceResolver
from monai.utils import ensure_tuple

from .pack_bundle import scripts

MODULES = {"torch": "torch", "dist": "torch.distributed", "monai": "monai", "ignite": "ignite", "os": "os"}
"""What may be imported, and the only name that it may have then."""

PACKAGES = (
    "common",
    *(f"monai.{name}" for name in ("data", "engines", "handlers", "inferers", "losses", "metrics", "networks")),
    *("monai.optimizers", "monai.transforms", "monai.visualize"),
    *("torch.nn", "torch.optim", "torch.utils.data", "ignite.engine", "ignite.handlers", "ignite.metrics"),
)
"""Where classes and functions are defined that a target or an expression may name."""

FUNCTIONS = (
    *(f"torch.{name}" for name in ("device", "tensor", "Generator", "manual_seed")),
    *(f"torch.{name}" for name in ("bool", "uint8", "int32", "int64", "float16", "bfloat16", "float32", "float64")),
    *(f"torch.cuda.{name}" for name in ("is_available", "device_count", "set_device")),
    *(f"torch.distributed.{name}" for name in ("is_available", "is_initialized", "get_rank", "get_world_size")),
    *(f"torch.distributed.{name}" for name in ("init_process_group", "destroy_process_group", "barrier")),
    *("monai.utils.set_determinism", "monai.utils.path_to_sqlite_uri"),
)
"""What may be named of other modules."""

REFUSED = (
    *("common.converters", *(f"common.files.{x}" for x in ("replacing", "write_bytes", "write_csv", "write_text"))),
    *(f"ignite.handlers.{name}_logger" for name in ("clearml", "mlflow", "neptune", "polyaxon", "wandb")),
    *(f"monai.data.dataset.{name}Dataset" for name in ("Persistent", "CacheNTrans", "LMDB", "GDS", "NPZDictItem")),
    *("monai.data.image_dataset", "monai.data.image_reader.NumpyReader", "monai.data.torchscript_utils"),
    *("monai.handlers.logfile_handler", "monai.handlers.trt_handler", "monai.losses.perceptual"),
    *("monai.networks.nets.flexible_unet.FlexUNetEncoderRegister", "monai.networks.trt_compiler"),
    *("monai.networks.utils", "monai.transforms.utils_create_transform_ims"),
    *("torch.nn.cpp", "torch.utils.data.datapipes", "torch.utils.data.graph"),
)
"""What in the packages evaluates configs, unpickles, downloads code, writes any text, or imports or gets by a name."""

BY_NAME, NAMES_A_CLASS = ("monai.transforms.io",), ("reader", "writer", "merger_cls")
"""Transforms that import what a string names, and may only stand in lists of transforms; arguments that name it."""

UNPICKLES = ("allow_pickle", "weights_only")
"""Arguments that can make a file run what it holds."""

KEYS = ("_target_", "_mode_", "_disabled_", "_requires_", "_desc_", "_meta_")
"""MONAI's own; its ``_debug_`` stops at a prompt."""

WITH_IMPORTS = ("imports", "initialize")
"""The only lists with imports: to refer to them, to all or to the metadata would be to have a module as a value."""

REFUSED_ATTRIBUTES = re.compile(
    r"_.*|(ag|co|cr|gi|tb)_.*|f_(back|builtins|code|globals|locals)|format.*|"
    r"multiprocessing_context|ctypes|from_.*|dump.*|write.*|tofile|unlink"
)
"""What no expression may ask a reference for: private things, frames, format strings, modules, memory, files."""

BUILTINS = (
    *("abs", "bool", "dict", "float", "int", "len", "list", "max", "min", "range", "round", "set", "sorted", "str"),
    *("sum", "tuple", "zip"),
)
LOCAL_RANK = "os.environ['LOCAL_RANK']"
MAX_EXPRESSION = 500

COMPARING = (ast.boolop, ast.cmpop, ast.unaryop, ast.BoolOp, ast.Compare, ast.UnaryOp)
INDEXING = (*COMPARING, ast.Constant, ast.Slice, ast.Subscript, ast.Tuple, ast.expr_context)
PLAIN = (*INDEXING, ast.BinOp, ast.operator, ast.IfExp, ast.List, ast.Dict)
"""What expressions are made of besides references, attributes, calls, and the lambdas and filters that index."""

LOGGING: dict[str, Sequence[str] | None] = {
    **dict.fromkeys(("keys", "level", "handlers", "qualname", "propagate", "formatter", "format", "datefmt", "style")),
    "class": ("StreamHandler", "logging.StreamHandler", "logging.Formatter"),
    "args": ("()", "(sys.stdout,)", "(sys.stderr,)"),
}
"""Options of ``logging.conf``, and the values of those that ``logging`` evaluates."""


class RefusedError(ValueError):
    """Something in a bundle that the lists do not name."""


def refusals(root: Path) -> list[str]:
    """Return what in a bundle's folder is refused: the file, the id, the value and the reason of each.

    All JSON and logging files are read, as MONAI can be given any of them; a macro leads, as in MONAI, from the working
    directory. Python is what ``ci.pack_bundle`` puts into ``scripts/``, byte for byte, or refused.

    Args:
        root: the folder, an absolute path without links.
    """
    found, ours = list[str](), scripts()
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        try:
            found += [f"{name}: {reason}" for reason in _in_file(root, path, ours)]
        except (ValueError, RecursionError, OSError, configparser.Error) as error:
            found.append(f"{name}: cannot be read ({type(error).__name__}: {error})")
    return found


def _in_file(root: Path, path: Path, ours: Mapping[str, bytes]) -> Iterator[str]:
    name, suffix = path.relative_to(root).as_posix(), path.suffix.lower()
    if not Path(os.path.realpath(path)).is_relative_to(root):
        yield "a link that leads out of the bundle"
    elif not path.is_file():
        return
    elif name.startswith("scripts/") or path.name.lower().endswith(tuple(all_suffixes())):
        if ours.get(name) != path.read_bytes():
            yield "Python, or compiled, that is not what this commit packs: take the commit that did, or read it first"
    elif suffix == ".json":
        config = json.loads(path.read_text("utf-8"), object_pairs_hook=_without_doubles)
        for where, value, siblings in _items(config):
            try:
                _check(where, value, siblings, root)
            except RefusedError as error:
                yield f"{'::'.join(where)}: {value!r:.100}: {error}"
    elif suffix in (".yaml", ".yml") and not name.startswith("large_files."):
        yield "YAML, of which nothing is read here: write it as JSON"
    elif suffix in (".conf", ".cfg", ".ini"):
        parser = configparser.RawConfigParser()
        parser.read_string(path.read_text("utf-8"))
        for section in parser:
            for option, value in parser[section].items():
                values = LOGGING.get(option, ())
                if values is not None and value.strip() not in values:
                    yield f"{section}: {option} = {value}: expected one of {values}"


def _without_doubles(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    _demand(len(content) == len(pairs), "the same key twice")
    return content


def _items(config: Any, where: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Yield everything in a config: the keys on the way to it, the thing, and what it lies in."""
    if isinstance(config, dict | list):
        for key, value in config.items() if isinstance(config, dict) else enumerate(config):
            yield (*where, str(key)), value, config
            yield from _items(value, (*where, str(key)))


def _check(where: Sequence[str], value: Any, siblings: Any, root: Path) -> None:
    """Refuse a value for its key, or a string for what MONAI would make of it."""
    ids = ReferenceResolver.split_id("::".join(where))
    *above, name = ids
    _demand(not name.startswith("_") or name in KEYS, "MONAI has no such key")
    _demand(name not in UNPICKLES, "an argument that can make a file run what it holds")
    if name in ("_target_", "_mode_"):
        # Set apart, it would change a component of another file; in lists, by an index that neither file shows.
        named = name == "_mode_" and all(re.fullmatch(r"[A-Za-z_]\w*", part) for part in ids)
        whole = where[-1] == name and not (len(where) == 2 and where[0].startswith("+"))
        _demand(whole or named, f"{name} apart from its component")
    if name == "_mode_":
        _demand(value in ("default", "callable"), "expected default or callable")
    elif name == "_target_":
        _check_component(value, siblings.get("_mode_", "default"), above)
    elif isinstance(value, str):
        argument = _argument(ids)
        if argument in NAMES_A_CLASS and not re.fullmatch(rf"@(\w+::)*{argument}", value):
            _check_target(value)
        else:
            _check_text(ReferenceResolver.normalize_id(value), root, where[0].removeprefix("+") in WITH_IMPORTS)


def _argument(ids: Sequence[str]) -> str:
    """Return the last part of an id that is no index of a list."""
    return next((part for part in reversed(ids) if not part.isdigit()), "")


def _check_component(target: Any, mode: Any, ids: Sequence[str]) -> None:
    homes = _check_target(target)
    if any(_within(home, BY_NAME) for home in homes):
        listed = any(part.isdigit() for part in ids)
        _demand(listed and mode == "default", "expected in a list of transforms, and not callable")
    if _argument(ids) in NAMES_A_CLASS:
        _demand(all(inspect.isclass(locate(home)) for home in homes), "expected a class: a function may return a name")


def _check_target(target: Any) -> list[str]:
    """Return where what is called is defined, which may be in several modules if none is named."""
    _demand(isinstance(target, str), "expected a name")
    modules = ensure_tuple(_LOCATOR.get_component_module_name(target) or ())
    _demand(modules or "." in target, f"MONAI has no {target}")
    return [_check_name(f"{module}.{target}") for module in modules] or [_check_name(target)]


_LOCATOR = ComponentLocator()


def _check_name(name: str) -> str:
    """Return where a class or function is defined."""
    if name in FUNCTIONS:
        return name
    name = name.removeprefix("scripts.") if name.startswith("scripts.common.") else name
    plain = re.fullmatch(r"[a-z]\w*(\.[a-z]\w*)+", name, re.ASCII | re.IGNORECASE) and "__" not in name
    _demand(plain and _within(name, PACKAGES), f"{name} is not of {', '.join(PACKAGES)}")
    try:
        found: Any = locate(name)
    except Exception as error:
        raise RefusedError(f"{name} cannot be imported ({type(error).__name__})") from error
    _demand(inspect.isclass(found) or inspect.isfunction(found), f"{name} is no class or function")
    home = f"{found.__module__}.{found.__qualname__}"
    _demand(_within(home, PACKAGES), f"{name} comes from elsewhere, {home}")
    _demand(not _within(home, REFUSED), f"{home} could run or write what nobody has read")
    return home


def _check_text(value: str, root: Path, may_import: bool) -> None:
    """Refuse a string that is an expression, a reference or a macro."""
    if value[:1] not in ("$", "@", "%"):
        return
    _demand(not ConfigParser.relative_id_prefix.search(value), "a relative id, which keys would fill: write it in full")
    ids = ReferenceResolver.match_refs_pattern(value)
    path, macro = ConfigParser.split_path_id(value[1:]) if value.startswith("%") else ("", None)
    _demand(not path or Path(path).resolve().parent == root / "configs", "a macro that leads out of the configs")
    for each in ids if macro is None else (macro,):
        first = each.split("::")[0].strip()
        _demand(first not in ("", "_meta_", *WITH_IMPORTS), "a reference to what may hold modules")
    if value.startswith("$"):
        _demand(len(value) <= MAX_EXPRESSION, f"an expression of more than {MAX_EXPRESSION} characters")
        _demand(value.isascii(), "an expression with other letters than ASCII")
        _demand("__" not in value, "a name with __")
        _check_code(ReferenceResolver.update_refs_pattern(value, ids)[1:], may_import)


def _check_code(code: str, may_import: bool) -> None:
    """Refuse an expression or import, in which MONAI has replaced the references."""
    try:
        if not isinstance(next(iter(ast.parse(code).body), None), ast.Import | ast.ImportFrom):  # as MONAI tells them
            _check_node(ast.parse(code, mode="eval").body)
            return
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise RefusedError(f"no Python ({type(error).__name__})") from error
    module, _, name = code.removeprefix("import ").partition(" as ")
    listed = module in MODULES.values() and (not name or MODULES.get(name) == module)
    _demand(listed, f"an import of something else than {', '.join(MODULES.values())}, or under another name")
    _demand(may_import, f"an import outside of {' and '.join(WITH_IMPORTS)}")


def _check_node(node: ast.AST) -> None:
    """Refuse a part of an expression."""
    shown = ast.unparse(node)
    match node:
        case ast.Subscript() if _is_reference(node) or shown == LOCAL_RANK:
            pass
        case ast.Lambda(args=args, body=body):
            names = [arg.arg for arg in args.args]
            simple = ast.unparse(args) == ", ".join(names) and _only_indexes(body, names)
            _demand(simple, "a lambda that does more than index, compare or take len")
        case ast.ListComp(elt=ast.Name(id=name), generators=[ast.comprehension(target=target, iter=source, ifs=ifs)]):
            simple = ast.unparse(target) == name and _is_reference(source)
            _demand(simple and all(_only_indexes(each, [name]) for each in ifs), "more than a filter of a reference")
        case ast.Attribute() if re.fullmatch(r"[\w.]+", shown):
            module, _, rest = shown.partition(".")
            _demand(module in MODULES, f"{module} is not one of {', '.join(MODULES)}")
            _demand(not _within(_check_name(f"{MODULES[module]}.{rest}"), BY_NAME), f"{shown} may only be a target")
        case ast.Attribute(value=value, attr=name):
            _demand(_of_reference(value), f"{name} is an attribute of what is no module or reference")
            _demand(not REFUSED_ATTRIBUTES.fullmatch(name), f"the attribute {name}")
            _check_node(value)
        case ast.Call(func=function, args=arguments, keywords=keywords):
            if isinstance(function, ast.Name):
                _demand(function.id in BUILTINS, f"a call of {function.id}")
            else:
                _demand(isinstance(function, ast.Attribute) or _of_reference(function), "a call of what has no name")
                _check_node(function)
            for keyword in keywords:
                _demand(keyword.arg and keyword.arg not in UNPICKLES, f"the argument {keyword.arg or '**'}")
            for argument in (*arguments, *(keyword.value for keyword in keywords)):
                _check_node(argument)
        case _:
            _demand(isinstance(node, PLAIN), f"{shown} ({type(node).__name__})")
            for child in ast.iter_child_nodes(node):
                _check_node(child)


def _only_indexes(node: ast.AST, names: Collection[str]) -> bool:
    """Return whether something is made of names and references by index, comparison and ``len`` alone."""
    if isinstance(node, ast.Name):
        return node.id in names
    if isinstance(node, ast.Call):
        takes_len = ast.unparse(node.func) == "len" and "len" not in names and not node.keywords
        return takes_len and all(_only_indexes(argument, names) for argument in node.args)
    inner = isinstance(node, INDEXING) and all(_only_indexes(child, names) for child in ast.iter_child_nodes(node))
    return inner or _is_reference(node)


def _is_reference(node: ast.AST) -> bool:
    """Return whether MONAI has put this there for a reference: nobody else may write its name, which has ``__``."""
    return isinstance(node, ast.Subscript) and ast.unparse(node.value) == ReferenceResolver._vars


def _of_reference(node: ast.AST) -> bool:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call) and not _is_reference(node):
        node = node.func if isinstance(node, ast.Call) else node.value
    return _is_reference(node)


def _within(name: str, packages: Sequence[str]) -> bool:
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


def _demand(condition: object, otherwise: str) -> None:
    if not condition:
        raise RefusedError(otherwise)

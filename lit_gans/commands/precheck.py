"""Mistakes that can be told before torch is imported: files that are not there, and names that do not exist.

Signatures are read from source files, which takes milliseconds; the parsers of the commands look again, and have the
last word. So whatever is not certain is passed on to them: foreign classes, nested options, values.
"""

import ast
import difflib
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lit_gans.commands.errors import no_checkpoint
from lit_gans.commands.files import refuse_existing
from lit_gans.commands.listing import FAMILIES, config_lines, data_lines
from lit_gans.commands.words import options, shipped, values_of
from lit_gans.errors import UserError, unknown

__all__ = ("DATA_CLASSES", "check", "class_arguments", "data_class", "own_options")

_PACKAGE = Path(__file__).parents[1]
_TRAINING = ("fit", "validate", "test", "tune", "profile")
_WITH_DATA = (*_TRAINING, "evaluate", "check-data")
_SOURCES = {  # files with the options of a command
    **dict.fromkeys(("fit", "validate", "test"), ("training",)),
    "tune": ("tuning/__init__", "training"),
    "profile": ("profiling/__init__", "training"),
    "sample": ("sampling",),
    "translate": ("translation/__init__",),
    "evaluate": ("evaluation", "picture_evaluation"),
    "check-data": ("data",),
    "compare": ("comparison",),
    "list": ("listing",),
}
_ROOMS = ("models", "networks", "regularizers", "augment", "callbacks", "guard")
DATA_CLASSES = {
    "ImageDataModule": "datamodule",
    "PairedImageDataModule": "pairs",
    "UnpairedImageDataModule": "unpaired",
}
"""Data modules that ``--data`` names, and the files that define them."""
_STATES = ("best", "last", "hpc", "null", "None")  # what stands for a checkpoint without being a file
_NEAR = 0.85  # of a short name to one of ours, from which on it is a misspelling


def check(command: str, words: list[str]) -> None:
    """Refuse what is wrong for certain.

    Args:
        command: Name of the command.
        words: That follow it, options spelled with underscores.

    Raises:
        UserError: naming it, and the nearest right name.
    """
    if any(word in ("-h", "--help") or re.match(r"--[\w.]+\.help(=|$)", word) for word in words):
        return
    known = own_options(command)
    check_options(command, words, known)
    check_files(command, words, known)
    if command in _TRAINING:
        check_training(command, words)


# options


def check_options(command: str, words: list[str], known: Mapping[str, str]) -> None:
    """Names of options; of nested ones only the outer name, and the argument of a class of ours."""
    names = {name.lstrip("-") for name in known if name.startswith("--")} | {"help"}
    if command in _WITH_DATA:
        names.add("data")
    if command in _TRAINING:
        names |= {"config", "print_config", "seed_everything", "trainer", "model", "optimizer", "lr_scheduler"}
        names |= trainer_arguments("fit" if command in ("tune", "profile") else command)
        names -= {"optimizer", "lr_scheduler"}
    for name, _ in options(words):
        if name.endswith("+"):
            name = name[:-1]
        outer, _, inner = name.partition(".")
        if outer not in names:
            if command not in _TRAINING and any(other.startswith(name) for other in names):
                continue  # argparse takes abbreviations
            if command == "tune" and inner:
                continue  # a weight of a penalty by its name, which the search knows better
            raise UserError(unknown("option", name, all_options(command, names)))
        first = inner.partition(".")[0]
        inside = arguments_inside(outer, data_class(words)) if inner else set()
        if inside and command == "evaluate" and outer == "data" and data_class(words) is None:
            inside = set().union(*map(data_arguments, DATA_CLASSES))  # the checkpoint tells which data module
        if inside and first not in inside | {"class_path", "init_args", "dict_kwargs"} and not is_foreign(outer, words):
            raise UserError(unknown("option", name, all_options(command, names, data_class(words))))


def arguments_inside(outer: str, data: str | None) -> set[str]:
    """Names of the options below an outer one, as far as they are known."""
    return trainer_arguments() if outer == "trainer" else data_arguments(data) if outer == "data" else set()


def all_options(command: str, names: Iterable[str], data: str | None = None) -> list[str]:
    """Names that may have been meant, the usual ones first."""
    nested = [f"data.{name}" for name in sorted(data_arguments(data))] if command in _WITH_DATA else []
    if command in _TRAINING:
        nested += [f"trainer.{name}" for name in sorted(trainer_arguments())]
        nested += [f"model.{name}" for name in sorted(class_arguments("GAN") or ())]
    return [*sorted(names), *nested]


def data_class(words: list[str]) -> str | None:
    """The data module of ours that is named, by an option or else by a config; None if none is."""
    named = [value for name, value in options(words) if name in ("data", "data.class_path")][::-1]
    named += [part(config, "data").get("class_path") for config in configs(words)][::-1]
    shorts = (str(name).rpartition(".")[2] for name in named if name)
    return next((short for short in shorts if short in DATA_CLASSES), None)


def is_foreign(outer: str, words: list[str]) -> bool:
    """Whether another class than ours may be meant by ``--data`` or ``--trainer``."""
    if outer == "data" and data_class(words):
        return False
    return any(name in (outer, f"{outer}.class_path") for name, _ in options(words)) or any(
        isinstance(part := config.get(outer), Mapping) and "class_path" in part for config in configs(words)
    )


# files


def check_files(command: str, words: list[str], known: Mapping[str, str]) -> None:
    """Configs and checkpoints that are to be read, and outputs that must not be there."""
    for name in values_of(words, "config"):
        if command in _TRAINING and is_path(name) and not Path(name).exists() and shipped(name) is None:
            raise UserError(f"no such file: {name}{nearest_config(name)}")
    paths = values_of(words, "ckpt_path") if command in _TRAINING else []
    if command in ("sample", "translate", "evaluate"):
        paths += positionals(words, known)[:1]
    for path in paths:
        if is_path(path) and path not in _STATES and not path.startswith("registry"):
            file = Path(path)
            if not file.exists() and not file.with_name(f"{file.name}.previous").exists():
                raise UserError(no_checkpoint(path))
    if command == "compare":
        for path in positionals(words, known):
            if not Path(path).exists():
                raise UserError(f"no such file: {path}")
    for path in [*values_of(words, "images"), *values_of(words, "against")] if command == "evaluate" else []:
        if not Path(path).exists():
            raise UserError(f"there is nothing at {path}")
    output = next((words[i + 1] for i, word in enumerate(words[:-1]) if word in ("-o", "--output")), None)
    if output is not None and command in ("evaluate", "check-data") and "--overwrite" not in words:
        refuse_existing(Path(output), overwrite=False)


def is_path(text: str) -> bool:
    """Whether a text can be nothing else than the path of a file: no content, no address, no other word."""
    return bool(text) and not re.search(r"://|[\n{}\[\]]|: |:$", text)


def nearest_config(name: str) -> str:
    """A shipped config that may have been meant, as the end of a sentence."""
    names = [path.removeprefix("configs/").removesuffix(".yaml") for path in config_lines()]
    near = difflib.get_close_matches(name.removeprefix("configs/").removesuffix(".yaml"), names, n=2, cutoff=0.6)
    return f": did you mean {' or '.join(f'configs/{other}.yaml' for other in near)}?" if near else ""


def positionals(words: list[str], known: Mapping[str, str]) -> list[str]:
    """Words that are neither options nor their values."""
    found, taken = [], "none"
    for word in words:
        if re.match(r"--?[A-Za-z]", word):
            name = word.partition("=")[0]
            short = not word.startswith("--") and len(word) > 2
            taken = "none" if "=" in word or short else known.get(name, "one")
        elif taken == "none":
            found.append(word)
        elif taken == "one":
            taken = "none"
    return found


# configs and classes


def check_training(command: str, words: list[str]) -> None:
    """Keys of configs, names of classes and of data sets, arguments of the model."""
    foreign = bool(values_of(words, "import")) or "lit_gans.models" in sys.modules  # then there may be other classes
    contents = configs(words)
    keys = set(own_options(command)) | {f"--{name}" for name in trainer_arguments("fit")}
    top = {key.lstrip("-") for key in keys} | {"seed_everything", "trainer", "model", "data", "config", "verbose"}
    check_no_data_class(words, contents)
    for config in contents:
        check_keys(config, top, data_class(words))
    models = [str(value) for name, value in options(words) if name in ("model", "model.class_path") and value]
    models += [path for config in contents if isinstance(path := part(config, "model").get("class_path"), str)]
    models = [name for name in models if name.isidentifier() and name not in ("null", "None")]
    names = [name for group in FAMILIES.values() for name in group]
    for name in models:
        if name not in names and not foreign and not Path(name).exists():
            raise UserError(f"model: {unknown('class', name, names)}")
    check_model_arguments(words, contents, models)
    for where, name in class_names(words, contents) if not foreign else ():
        near = difflib.get_close_matches(name, our_classes(), 1, _NEAR)
        if not near or near[0].endswith(name):  # ResNet is a class of others, and no misspelling of SRResNet
            continue
        if name not in our_classes() and not name.startswith("_") and not is_defined(name):
            raise UserError(f"{where}: {unknown('class', name, near)}")
    sets = values_of(words, "data.dataset")
    data = [part(config, "data") for config in contents]
    data += [part(inner, "init_args") for inner in data]
    sets += [value for inner in data if isinstance(value := inner.get("dataset"), str)]
    for name in sets:
        if name.isidentifier() and name not in data_lines() and not is_foreign("data", words):
            raise UserError(f"data.dataset: {unknown('value', name, data_lines())}")


def check_no_data_class(words: list[str], contents: list[Mapping[str, Any]]) -> None:
    """Data of one's own are a function on the command line; a data module of one's own belongs into Python."""
    named = [value for name, value in options(words) if name in ("data", "data.class_path")]
    named += [part(config, "data").get("class_path") for config in contents]
    for name in named:
        if str(name).rpartition(".")[2] in DATA_CLASSES:
            continue
        if name and re.fullmatch(r"[A-Za-z_][\w.]*", str(name)) and not Path(str(name)).exists():
            raise UserError(
                f"data: {name} cannot be named here: for data of your own give a function that returns the images, "
                "--data.dataset module:function (docs/data.md), or hand your data module to Trainer.fit in Python"
            )


def check_keys(config: Mapping[str, Any], top: set[str], data: str | None = None) -> None:
    """Keys of a config file, as far as they are those of options."""
    for key, value in config.items():
        outer = str(key).partition(".")[0].removesuffix("+")
        inside = arguments_inside(outer, data)
        if outer not in top:
            inner = next(iter(value), "") if isinstance(value, Mapping) else ""
            meant = [
                *sorted(top),
                *(f"trainer.{name}" for name in trainer_arguments()),
                *(f"data.{name}" for name in data_arguments(data)),
            ]
            raise UserError(unknown("key", f"{outer}.{inner}" if inner else outer, meant))
        if outer == "data" and data and isinstance(value, Mapping):
            value = dict.fromkeys(value, 0) | dict(part(value, "init_args"))
        elif not inside or not isinstance(value, Mapping) or "class_path" in value:
            continue
        for name in value:
            first = str(name).partition(".")[0].removesuffix("+")
            if first not in inside | {"class_path", "init_args", "dict_kwargs"}:
                raise UserError(unknown("key", f"{outer}.{first}", [f"{outer}.{other}" for other in sorted(inside)]))


def check_model_arguments(words: list[str], contents: list[Mapping[str, Any]], models: list[str]) -> None:
    """Arguments of the model, if its class, or each of those named one after the other, is known."""
    given = [name.split(".") for name, _ in options(words) if name.startswith("model.")]
    names = [(parts[2:] if parts[1] == "init_args" else parts[1:])[:1] for parts in given]
    flat = [name[0].removesuffix("+") for name in names if name]
    for config in contents:
        flat += [str(key).partition(".")[0].removesuffix("+") for key in part(part(config, "model"), "init_args")]
    arguments = [class_arguments(name) for name in models]
    if not arguments or any(known is None for known in arguments) or has_dotted_class(words, contents):
        return
    known = sorted(set().union(*(known for known in arguments if known)))
    for name in flat:
        if name not in known and name not in ("class_path", "init_args", "dict_kwargs", "help"):
            raise UserError(unknown("argument", name, known))


def has_dotted_class(words: list[str], contents: list[Mapping[str, Any]]) -> bool:
    """Whether the model is named otherwise than by a short name, or stands in a file of its own, or in a checkpoint."""
    values = [value for name, value in options(words) if name in ("model", "model.class_path", "ckpt_path")]
    for config in contents:
        values += [config.get("ckpt_path"), part(config, "model").get("class_path")]
        values.append(config["model"] if isinstance(config.get("model"), str) else None)
    return any(value is not None and not str(value).isidentifier() for value in values)


def class_names(words: list[str], contents: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Short names of networks and add-ons, with the place where each stands."""
    slots = ("generator", "discriminator", "augment", "regularizers")
    for name, value in options(words):
        outer, _, inner = name.removesuffix("+").removesuffix(".class_path").partition(".")
        inner = inner.removeprefix("init_args.")
        if value and value.isidentifier() and ((outer == "model" and inner in slots) or inner == "callbacks"):
            yield f"{outer}.{inner}", value
    for config in contents:
        yield from _class_paths(config, "")


def _class_paths(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        if where != "model" and isinstance(path := value.get("class_path"), str) and path.isidentifier():
            yield where, path
        for key, inner in value.items():
            yield from _class_paths(inner, where if key == "init_args" else f"{where}.{key}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            yield from _class_paths(inner, where)


def part(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A part of a config, empty if it is none."""
    found = config.get(key)
    return found if isinstance(found, Mapping) else {}


def configs(words: list[str]) -> list[Mapping[str, Any]]:
    """Contents of the config files, as far as they can be read here."""
    found = []
    for name in values_of(words, "config"):
        path = Path(name) if Path(name).exists() else shipped(name)
        if path is not None and path.is_file():
            content = _content(path, path.stat().st_mtime_ns)
            found += [content] if isinstance(content, Mapping) else []
    return found


@cache
def _content(path: Path, _changed: int) -> Any:
    import yaml

    try:
        return yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        del error  # the parser says what is wrong with it
        return None


# what sources say


@cache
def own_options(command: str) -> dict[str, str]:
    """Options that a command adds itself, each with the number of its values: none, one or many."""
    found = {}
    for name in _SOURCES[command]:
        for node in ast.walk(ast.parse((_PACKAGE / "commands" / f"{name}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("add_argument"):
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                many = "nargs" in given or "**" in ast.unparse(node)
                takes = "none" if "store_" in given.get("action", "") else "many" if many else "one"
                for text in (arg.value for arg in node.args if isinstance(arg, ast.Constant)):
                    if str(text).startswith("-"):
                        found[str(text)] = takes
    return found | ({"--weight": "many"} if command == "tune" else {})


@cache
def trainer_arguments(method: str = "__init__") -> set[str]:
    """Arguments of Lightning's Trainer, or those of one of its methods that are options."""
    spec = importlib.util.find_spec("lightning")
    where = spec.submodule_search_locations if spec is not None else None
    path = Path(where[0], "pytorch", "trainer", "trainer.py") if where else None
    if path is None or not path.is_file():
        return set()
    found = set(arguments_in(_tree(path), "Trainer", method)[0])
    return found - {"model", "dataloaders", "train_dataloaders", "val_dataloaders", "datamodule"}


@cache
def data_arguments(name: str | None = None) -> set[str]:
    """Arguments of a data module of ours; None for the one that is taken where none is named."""
    name = name or "ImageDataModule"
    return set(arguments_in(_tree(_PACKAGE / "data" / f"{DATA_CLASSES[name]}.py"), name)[0])


@cache
def our_classes() -> list[str]:
    """Public names of models, networks and add-ons."""
    names: list[str] = []
    for room in _ROOMS:
        for node in _tree(_PACKAGE / room / "__init__.py").body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                names += ast.literal_eval(node.value)
    return names


def is_defined(name: str) -> bool:
    """Whether any file of the package defines a class of that name."""
    pattern = re.compile(rf"^class {re.escape(name)}\b", re.MULTILINE)
    return any(pattern.search(path.read_text(encoding="utf-8")) for path in _PACKAGE.rglob("*.py"))


@cache
def class_arguments(name: str) -> set[str] | None:
    """Arguments of a model's class and of those that its ``**kwargs`` go to; None if they cannot be told."""
    if (file := _file_of(name)) is None:
        return None
    arguments, open_ended, bases = arguments_in(_tree(file), name)
    if not open_ended:
        return set(arguments)
    inherited = [known for base in bases if (known := class_arguments(base)) is not None]
    return set(arguments).union(*inherited) if inherited else None


def arguments_in(tree: ast.Module, cls: str, method: str = "__init__") -> tuple[list[str], bool, list[str]]:
    """Arguments of a method, whether others go to the class's bases, and those bases."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == cls:
            bases = [ast.unparse(base) for base in node.bases]
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and inner.name == method:
                    given = [*inner.args.posonlyargs, *inner.args.args, *inner.args.kwonlyargs]
                    return [arg.arg for arg in given if arg.arg != "self"], inner.args.kwarg is not None, bases
            return [], True, bases
    return [], True, []


@cache
def _file_of(cls: str) -> Path | None:
    """The file of papers or of the engine that defines a class."""
    pattern = re.compile(rf"^class {re.escape(cls)}\b", re.MULTILINE)
    paths = sorted(path for room in ("models", "game") for path in (_PACKAGE / room).rglob("*.py"))
    return next((path for path in paths if pattern.search(path.read_text(encoding="utf-8"))), None)


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))

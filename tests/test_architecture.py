"""Who may import whom, how long files may be, and what no step may do: read from the source, nothing is run."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lit_gans"
FILES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}
ANYTHING = {
    *(
        "augment",
        "callbacks",
        "cli",
        "commands",
        "data",
        "errors",
        "files",
        "functional",
        "game",
        "guard",
        "internals",
        "metrics",
        "models",
    ),
    *("modules", "networks", "preflight", "recorded", "regularizers", "runs", "strategies"),
}
MAY_IMPORT = {  # DESIGN, section 2; every room may import itself and the version
    "": ANYTHING,  # lit_gans/__init__.py imports when asked
    "__main__": {"cli"},
    "augment": {"errors", "recorded"},
    "callbacks": {"files", "functional", "game", "internals", "metrics", "models", "modules", "preflight.checks"},
    "cli": ANYTHING,
    "commands": ANYTHING - {"cli"},
    "data": {"errors", "functional"},
    "errors": set(),
    "files": set(),
    "functional": set(),
    "game": {
        *("functional", "internals", "modules", "preflight", "regularizers.regularizer", "runs.checkpoint_files"),
        *("runs.trust", "strategies"),
    },
    "guard": {"functional", "game", "internals", "metrics", "modules", "errors"},
    "metrics": {"files", "functional", "modules", "errors"},
    "internals": set(),
    "models": {"functional", "game", "internals", "modules", "regularizers", "runs.checkpoint_files"},
    "modules": set(),
    "networks": {"recorded"},
    "preflight": {"functional", "internals", "modules", "strategies"},
    "recorded": set(),
    "regularizers": {"functional", "metrics.extractors", "metrics.images", "metrics.published", "recorded"},
    "runs": {"errors", "files", "internals", "preflight.agreement"},
    "strategies": {"internals"},
    "version": set(),
}


def imports(tree):
    """Modules imported, wherever in the file, for types alone or at run time."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide the room"
            yield node.module


def room(file):
    return "" if file == "__init__.py" else file.removesuffix(".py").partition("/")[0]


def forbidden(file, tree):
    """Imports of our own that a file must not make."""
    ours = room(file)
    allowed = MAY_IMPORT[ours] | {ours, "version"}
    for name in imports(tree):
        top, _, inner = name.partition(".")
        if top == "lit_gans" and not any(inner == other or inner.startswith(f"{other}.") for other in allowed if other):
            yield name


def calls(tree, method):
    """What ``method`` is called on, as text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method:
            yield ast.unparse(node.func.value)


def private(tree):
    """Attributes with private names, as they stand in the text."""
    return {ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute) and re.match(r"_[a-z]", n.attr)}


@pytest.mark.parametrize("file", FILES)
def test_lightnings_private_names_are_in_one_file(file):
    """Those that ``internals.py`` knows, and any other of a trainer, its loops and its strategy."""
    if file == "internals.py":
        return
    known = {name.rpartition(".")[2] for name in private(FILES["internals.py"])}
    of_trainer = re.compile(r"\b(trainer|loop|strategy)\._\w+$")
    assert not [n for n in private(FILES[file]) if n.rpartition(".")[2] in known or of_trainer.search(n)]
    if file.startswith("strategies/"):  # a strategy of Lightning's, with other methods
        return
    imported = [n for n in ast.walk(FILES[file]) if isinstance(n, ast.ImportFrom) and n.module.startswith("lightning")]
    assert not [alias.name for node in imported for alias in node.names if alias.name.startswith("_")]


def test_every_room_has_its_rule():
    assert {room(file) for file in FILES} <= MAY_IMPORT.keys()


@pytest.mark.parametrize("file", FILES)
def test_who_may_import_whom(file):
    assert not list(forbidden(file, FILES[file])), f"lit_gans/{file} imports what DESIGN 2 forbids it"


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("models/x.py", "from lit_gans.networks import MLPGenerator"),
        ("game/x.py", "from lit_gans.regularizers.r1 import R1"),
        ("game/x.py", "if TYPE_CHECKING:\n    from lit_gans.models import GAN"),
        ("preflight/x.py", "from lit_gans.game.loop import Game"),
        ("models/x.py", "def f():\n    import lit_gans.data"),
        ("data/x.py", "import lit_gans.models"),
        ("networks/x.py", "from lit_gans.cli import main"),
        ("strategies/x.py", "from lit_gans.models import GAN"),
        ("callbacks/x.py", "from lit_gans import data"),
        ("commands/x.py", "from lit_gans.cli import main"),
    ],
)
def test_the_rule_sees_a_breach(file, line):
    assert list(forbidden(file, ast.parse(line)))


def test_no_circles():
    names = {f"lit_gans/{file}".removesuffix(".py").removesuffix("/__init__").replace("/", "."): file for file in FILES}
    graph = {module: {name for name in imports(FILES[file]) if name in names} for module, file in names.items()}
    graph["lit_gans"] = set()
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle
    places = {module: place for place, module in enumerate(order)}
    assert set(order) == set(graph)
    assert all(places[needed] < places[module] for module, others in graph.items() for needed in others)


def title(file):
    """What the docstring of a file begins with; a paper's file bears its name."""
    return (ast.get_docstring(FILES[file]) or "").partition(": ")[0]


MECHANISMS = {  # codes, styles, an optimizer of its own; places in an encoder, two directions, a window
    **{"infogan": 80, "stylegan2": 55, "unrolled_gan": 65, "cut": 50, "cyclegan": 62, "context_encoder": 85},
}
PAPERS = [f for f in FILES if f.startswith("models/") and title(f).replace("-", "_").lower() == Path(f).stem]


@pytest.mark.parametrize("file", PAPERS)
def test_papers_are_short(file):
    limit = MECHANISMS.get(Path(file).stem, 45)
    count = sum(isinstance(node, ast.stmt) and not is_prose(node) for node in ast.walk(FILES[file]))
    assert count <= limit, f"lit_gans/{file} has {count} statements, {limit} are allowed: a mechanism is hiding in it"


def is_prose(node):
    """Docstrings and imports."""
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return text or isinstance(node, (ast.Import, ast.ImportFrom))


def test_six_papers_are_measured():
    assert {"GAN", "DCGAN", "WGAN", "WGAN-GP", "SNGAN", "CGAN"} <= {title(file) for file in PAPERS}


@pytest.mark.parametrize("file", FILES)
def test_only_the_loop_steps_optimizers_and_nobody_calls_backward(file):
    assert not list(calls(FILES[file], "backward")), "DDP averages only in manual_backward"
    steps = [owner for owner in calls(FILES[file], "step") if owner != "config.scheduler"]
    # the duality gap trains copies of the players, which nobody plays with
    assert steps == (["optimizer"] if file in ("game/loop.py", "guard/duality.py") else [])


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.startswith(("game/", "models/", "regularizers/", "functional"))]
)
def test_steps_do_not_wait_for_the_device(file):
    for method in ("item", "tolist", "cuda"):
        assert not list(calls(FILES[file], method))
    assert "inspect" not in set(imports(FILES[file]))


def named_calls(tree):
    """All calls: what is called, by its last name, and the call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func).rpartition(".")[2], node


def test_files_are_read_without_executing_and_what_they_name_is_imported_in_one_place():
    by_name = {  # who imports what is named, and who names it
        "__init__.py": "this table",
        "cli.py": "this table",
        "commands/parsing.py": "the user, in a config",
        "commands/words.py": "the user, by --import",
        "data/own.py": "the user, as a data set",
        "metrics/extractors.py": "the user, on the command line",
        "runs/trust.py": "a checkpoint, or those whom its reader trusts",
    }
    for file, tree in FILES.items():
        for name, call in named_calls(tree):
            assert name not in ("import_module", "__import__") or file in by_name, file
            assert name not in ("instantiate_module", "unsafe_load", "full_load", "Unpickler"), file
            called = ast.unparse(call.func)
            assert called not in ("eval", "exec"), file
            safe = {"torch.load": ("weights_only", "True"), "np.load": ("allow_pickle", "False")}
            if called in safe:
                name, value = safe[called]
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
                assert given.get(name, "False") == value, file


def test_logging_options_that_slow_the_step_are_not_used():
    for file, tree in FILES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("self.log", "self.log_dict"):
                assert "prog_bar" not in {keyword.arg for keyword in node.keywords}, file


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, lit_gans, lit_gans.cli, lit_gans.__main__, lit_gans.commands.listing; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "lightning", "torchvision", "numpy", "jsonargparse", "wandb"} & set(loaded)

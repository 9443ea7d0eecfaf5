"""The notebooks show what they say: their outputs are stored, and their code still gives the like."""

import ast
import json
import logging
import re
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
LENGTH = re.compile(r"(max_steps=|STEPS, WATCHED, LATENT_DIM = )(\d{3,})")


def cells(name):
    return [c for c in json.loads((NOTEBOOKS / name).read_text("utf-8"))["cells"] if c["cell_type"] == "code"]


def source(cell):
    return "".join(cell["source"])


def shown(cell):
    """The text of what a cell ended with, or nothing."""
    texts = ["".join(output.get("data", {}).get("text/plain", "")) for output in cell["outputs"]]
    return next((text for text in texts if text and not text.startswith("<Figure")), "")


def run(cell, scope):
    """As Jupyter does: all of it, and the value of the expression that it ends with."""
    tree = ast.parse(LENGTH.sub(r"\g<1>12", source(cell)))
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), scope)
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), scope) if last else None


@pytest.fixture
def scope(monkeypatch, tmp_path):
    """Where a notebook's names live, and what it changes outside of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    yield {}
    log.setLevel(level)


@pytest.mark.parametrize(("name", "lengths"), [("quickstart.ipynb", 2), ("compare.ipynb", 1), ("translate.ipynb", 1)])
def test_each_cell_runs_and_what_no_training_changes_is_what_is_stored(name, lengths, scope):
    """In twelve steps for a thousand or two; ``-m exhaustive`` runs the whole in a kernel."""
    trained = False
    for cell in cells(name):
        trains = len(LENGTH.findall(source(cell)))
        lengths -= trains
        value = run(cell, scope)
        trained = trained or trains > 0
        if not trained or shown(cell) in ("True", "False"):
            assert shown(cell) in ("", repr(value))
    assert lengths == 0, "a training that is not shortened, or no training"


def test_the_stored_outputs_of_the_comparison_teach_its_lesson():
    modes = ast.literal_eval("".join(cells("compare.ipynb")[-1]["outputs"][0]["data"]["text/plain"]))
    assert modes["GAN"][-1] <= 2
    assert min(modes[name][-1] for name in ("PacGAN", "UnrolledGAN", "R3GAN")) >= 7
    assert any("image/png" in output.get("data", {}) for cell in cells("compare.ipynb") for output in cell["outputs"])


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_comparison_holds_with_other_seeds(seed, scope):
    for cell in cells("compare.ipynb")[:2]:
        exec(source(cell).partition("\nwatched =")[0], scope)
    modes = {name: scope["train"](name, seed).modes[-1] for name in scope["VARIANTS"]}
    assert modes["GAN"] <= 3
    assert min(count for name, count in modes.items() if name != "GAN") >= 6

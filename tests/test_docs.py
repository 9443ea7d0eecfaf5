"""The pages on the models are what ``python -m benchmarks.model_pages`` writes now, results aside."""

import re
from pathlib import Path

import pytest

import lit_gans.models
from benchmarks.model_pages import MODELS, WHEN, ZOO, formulas, last, markdown, page, row_of, summary

DOCS = Path(__file__).parents[1] / "docs"
STEMS = {name: getattr(lit_gans.models, name).__module__.rpartition(".")[2] for name in MODELS}


def without_results(text):
    return re.sub(r"<!-- results -->.*<!-- /results -->", "", text, flags=re.DOTALL)


def test_there_is_one_page_for_each_model():
    assert {path.stem for path in (DOCS / "models").glob("*.md")} == set(STEMS.values())
    assert set(WHEN) == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_the_page_is_what_the_sources_say(name):
    committed = (DOCS / "models" / f"{STEMS[name]}.md").read_text("utf-8")
    assert without_results(committed) == without_results(page(name)), "run python -m benchmarks.model_pages"


def test_the_readmes_tables_are_what_was_measured():
    found = ZOO.search((DOCS.parent / "README.md").read_text("utf-8"))
    assert found[0] == f"{found[1]}{summary()}{found[2]}", "run python -m benchmarks.model_pages"


def test_the_table_of_formulas_is_what_the_tests_say():
    assert (DOCS / "formulas.md").read_text("utf-8") == formulas(), "run python -m benchmarks.model_pages"


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.md")), ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text("utf-8"))
    assert all((path.parent / target).exists() for target in targets)


def test_docstrings_become_markdown():
    text = "The ``G``\nof :math:`x_1`.\n\n.. math::\n    a_1\n      + b\n\nwith ``a``."
    assert markdown(text) == "The `G` of $`x_1`$.\n\n```math\na_1\n+ b\n```\n\nwith `a`."


def test_results_are_means_over_the_runs_that_ended():
    runs = [{"seed": s, "history": [[5, {"fd": 9.0}], [10, {"fd": 1.0 + s, "modes": 8}]]} for s in (0, 1)]
    assert row_of([last(run) for run in runs]) == "`fd` 1.5 ± 0.707, `modes` 8 ± 0"
    assert last({"seed": 0, "error": "diverged", "history": [[5, {"fd": 9.0}]]}) == {}
    assert last({"variant": "GAN", "seed": 3, "steps": 9, "seconds": 1, "finite": True, "modes": 8}) == {"modes": 8}

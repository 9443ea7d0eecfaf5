"""The pages say what the sources say: tables are written from them, code runs, commands exist, links lead somewhere."""

import ast
import importlib.util
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
import yaml
from toys import Batches, trainer

import benchmarks.config_reference
import lit_gans.models
from benchmarks.model_pages import (
    GITHUB,
    MODELS,
    TABLES,
    between,
    last,
    markdown,
    page,
    pages,
    paper_of,
    row_of,
    sections,
    stem_of,
)
from lit_gans import GAN, ImageDataModule, Translation
from lit_gans.cli import COMMANDS
from lit_gans.commands.listing import FAMILIES
from lit_gans.commands.precheck import check_options, check_training, own_options
from lit_gans.commands.words import shipped, spelled, values_of
from lit_gans.networks import MLPDiscriminator, MLPGenerator

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
WRITTEN = [path for path in PAGES if path.parent.name not in ("models", "api")]  # by hand, that is
BLOCK = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def without_results(text):
    return re.sub(r"<!-- results -->.*<!-- /results -->", "", text, flags=re.DOTALL)


# what is written from the sources


def test_there_is_one_page_for_each_model():
    assert {path.stem for path in (DOCS / "models").glob("*.md")} == {"index", *map(stem_of, MODELS)}


@pytest.mark.parametrize("name", MODELS)
def test_the_page_is_what_the_sources_say(name):
    committed = (DOCS / "models" / f"{stem_of(name)}.md").read_text("utf-8")
    assert without_results(committed) == without_results(page(name)), "run python -m benchmarks.model_pages"


@pytest.mark.parametrize("path", TABLES)
def test_tables_are_what_the_sources_say(path):
    mark, table = TABLES[path]
    text = (ROOT / path).read_text("utf-8")
    assert text == between(mark, text, table()), "run python -m benchmarks.model_pages"


@pytest.mark.parametrize("path", ["docs/formulas.md", "docs/models/index.md"])
def test_pages_are_what_the_sources_say(path):
    assert (ROOT / path).read_text("utf-8") == pages()[path], "run python -m benchmarks.model_pages"


def test_the_reference_is_what_the_parsers_say():
    written = benchmarks.config_reference.PAGE.read_text("utf-8")
    assert written == benchmarks.config_reference.reference(), "run python -m benchmarks.config_reference"


def test_every_environment_variable_is_in_the_reference():
    sources = [path.read_text("utf-8") for path in (ROOT / "lit_gans").rglob("*.py")]
    assert {name for text in sources for name in re.findall(r"\bLIT_GANS_[A-Z0-9]+", text)} == set(
        benchmarks.config_reference.VARIABLES
    )


@pytest.mark.parametrize("name", MODELS)
def test_a_model_says_when_to_use_it_and_when_not(name):
    says = sections(getattr(lit_gans.models, name))
    assert says["When to use it"].endswith(".")
    assert says["When not"].endswith(".")
    assert name in FAMILIES[next(family for family in FAMILIES if f"{family}.".lower() == says["Family"].lower())]


def test_families_and_papers_stand_in_the_order_of_publication():
    cited = {name: paper_of(getattr(lit_gans.models, name))[1] for name in MODELS}
    numbers = {name: re.search(r"arXiv:([\d.]+\d)", paper)[1] for name, paper in cited.items()}
    for names in FAMILIES.values():
        assert [numbers[name] for name in names] == sorted(numbers[name] for name in names)
    oldest = [numbers[names[0]] for names in FAMILIES.values()]
    assert oldest == sorted(oldest)


def test_docstrings_become_markdown():
    text = "The ``G``\nof :math:`x_1`.\n\n.. math::\n    a_1\n      + b\n\nwith ``a``."
    assert markdown(text) == "The `G` of $x_1$.\n\n```math\na_1\n+ b\n```\n\nwith `a`."


def test_results_are_means_over_the_runs_that_ended():
    runs = [{"seed": s, "history": [[5, {"fd": 9.0}], [10, {"fd": 1.0 + s, "modes": 8}]]} for s in (0, 1)]
    assert row_of([last(run) for run in runs]) == "`fd` 1.5 ± 0.707, `modes` 8 ± 0"
    assert last({"seed": 0, "error": "diverged", "history": [[5, {"fd": 9.0}]]}) == {}
    assert last({"variant": "GAN", "seed": 3, "steps": 9, "seconds": 1, "finite": True, "modes": 8}) == {"modes": 8}


# links, and the site


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_lead_somewhere(path):
    text = path.read_text("utf-8")
    near = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    ours = re.findall(rf"\]\({re.escape(GITHUB)}/([^)#]+)", text)
    assert [target for target in near if not (path.parent / target).exists()] == []
    assert [target for target in ours if not (ROOT / target).exists()] == []


@pytest.mark.parametrize("path", [path for path in PAGES if DOCS in path.parents], ids=name_of)
def test_pages_of_the_site_point_into_the_site(path):
    """What lies beside docs/ is not published, but for the pictures of the benchmarks, which docs/hooks.py adds."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text("utf-8")):
        inside = (path.parent / target).resolve().is_relative_to(DOCS)
        assert inside or re.fullmatch(r"(\.\./)+benchmarks/results/\w+\.png", target), target


class Tolerant(yaml.SafeLoader):
    """Reads mkdocs.yml without calling what it names."""


Tolerant.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def test_every_page_is_in_the_navigation():
    def leaves(value):
        if isinstance(value, (list, dict)):
            for inner in value.values() if isinstance(value, dict) else value:
                yield from leaves(inner)
        else:
            yield value

    site = yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), Tolerant)
    models = [f"models/{stem}.md" for stem in map(stem_of, MODELS)]  # those the hook adds
    assert sorted([*leaves(site["nav"]), *models]) == sorted(
        path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")
    )


def test_the_models_are_in_the_navigation_family_by_family(hooks):
    config = SimpleNamespace(nav=[{"Start": "index.md"}, {"Models": ["models/index.md"]}])
    added = hooks.on_config(config).nav[1]["Models"][1:]
    assert [path for entry in added for path in entry.values()] == [
        f"models/{stem_of(name)}.md" for names in FAMILIES.values() for name in names
    ]


@pytest.fixture
def hooks():
    """docs/hooks.py, where the group of dependencies that builds the site is installed."""
    for name in ("griffe", "latex2mathml", "mkdocs"):
        pytest.importorskip(name)
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_formulas_become_mathml(hooks):
    texts = [path.read_text("utf-8") for path in (DOCS / "models").glob("*.md")]
    shown = [found for text in texts for found in re.findall(r"^```math\n(.*?)^```", text, re.DOTALL | re.MULTILINE)]
    inline = [found for text in texts for found in re.findall(r"\$([^$`\n]+)\$", text)]
    assert len(shown) >= len(MODELS)
    blocks = [hooks.on_page_content(f'<div class="arithmatex">\\[\n{text}\n\\]</div>') for text in shown]
    lines = [hooks.on_page_content(f'<span class="arithmatex">\\({text}\\)</span>') for text in inline]
    assert [text for text in blocks + lines if "arithmatex" in text or "\\" in text] == []
    assert all(text.count("<math") == source.count("qquad") + 1 for text, source in zip(blocks, shown, strict=True))


def test_docstrings_become_markdown_on_the_site(hooks):
    text = (
        "Of :math:`x`.\n\n.. math::\n    a\n      + b\n\nArgs:\n    g, d: Both\n        of them.\n\nExample:\n    >>> 1"
    )
    assert hooks.translated(text) == (
        "Of $x$.\n\n```math\na\n+ b\n```\n\nArgs:\n    g: Both\n        of them.\n    d: Both\n        of them.\n\n"
        "Examples:\n    >>> 1"
    )
    table = "====== ====\n``a``  one,\n       goes on\n``b``  two\n====== ===="
    assert hooks.translated(table) == "| | |\n|---|---|\n| ``a`` | one, goes on |\n| ``b`` | two |"


def test_pictures_are_shown_where_the_site_has_them(hooks):
    for source, up in (("results.md", ""), ("models/gan.md", "../")):
        page = SimpleNamespace(file=SimpleNamespace(src_uri=source))
        told = hooks.on_page_markdown("![a](../../benchmarks/results/grid.png)", page=page)
        assert told == f"![a]({up}pictures/grid.png)"
    assert hooks.on_page_markdown('```python notest="no GPU"\nx\n```', page=page) == "```python\nx\n```"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) <= 12_000


def test_the_citation_is_of_this_version_of_the_format():
    told = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert {"cff-version", "message", "title", "authors", "license"} <= told.keys()
    assert told["cff-version"] == "1.2.0"
    assert f'license = "{told["license"]}"' in project
    assert [set(author) for author in told["authors"]] == [{"name"}]


# code


def blocks(path, language):
    """Info string after the language, and content, of the blocks of a page."""
    return [(info.strip(), code) for name, info, code in BLOCK.findall(path.read_text("utf-8")) if name == language]


CODE = [path for path in WRITTEN if blocks(path, "python")]


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_the_code_of_a_page_is_python_and_what_does_not_run_says_why(path):
    for info, code in blocks(path, "python"):
        ast.parse(code)
        assert info == "" or re.fullmatch(r'notest="[^"]{10,}"', info)


@pytest.fixture
def short(monkeypatch, tmp_path):
    """Training of a few steps on the CPU, in an empty folder; the page's numbers of steps are for people."""
    plain = L.Trainer.__init__

    def init(self, *args, **options):
        options["max_steps"] = min(options.get("max_steps", 6), 6)
        plain(self, *args, **{"accelerator": "cpu", "enable_progress_bar": False} | options)

    monkeypatch.setattr(L.Trainer, "__init__", init)
    monkeypatch.chdir(tmp_path)


def run(path):
    """Execute the blocks of a page in order, as a reader would, and return the names they leave."""
    names = {"__name__": path.stem}
    for info, code in blocks(path, "python"):
        if not info:
            exec(compile(code, str(path), "exec"), names)
    return names


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", [path for path in CODE if path.name not in ("fabric.md", "variant.md")], ids=name_of)
def test_the_code_of_a_page_runs(path, short):
    """That of fabric.md is run, and compared with the Trainer, in tests/models/test_foreign_projects.py."""
    run(path)


@pytest.mark.filterwarnings("ignore")
def test_every_variant_of_the_page_on_variants_trains(short, tmp_path):
    names = run(DOCS / "variant.md")
    variants = {name: cls for name, cls in names.items() if isinstance(cls, type) and issubclass(cls, GAN)}
    assert len(variants) >= 6
    shape = {"image_size": 8, "channels": 1, "widths": [16]}
    pixels = torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for name, cls in variants.items():
        if name == "GAN" or issubclass(cls, Translation):
            continue
        model = cls(MLPGenerator(latent_dim=8, **shape), MLPDiscriminator(**shape), latent_dim=8)
        batch = {"pixels": pixels} if name == "FromRecords" else pixels / 127.5 - 1
        before = model.generator.state_dict()["layers.0.weight"].clone()
        trainer(tmp_path, max_steps=4).fit(model, Batches(batch, batch, batch, batch))
        assert not torch.equal(before, model.generator.state_dict()["layers.0.weight"]), name
        assert torch.isfinite(model.sample(2, seed=0)).all()
    assert type(names["retouch"]) is variants["Retouch"]
    assert names["clean"].shape == (1, 1, 20, 13)


def test_the_function_of_the_page_on_data_gives_images(tmp_path, monkeypatch):
    (code,) = (code for _, code in blocks(DOCS / "data.md", "python") if "spectrograms" in code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("my_data.py").write_text(code)
    for name in ("train", "test"):
        np.savez(f"{name}.npz", images=np.zeros((6, 8, 8), np.uint8), labels=np.arange(6) % 2)
    data = ImageDataModule("my_data:spectrograms", batch_size=4)
    data.setup("fit")
    assert next(iter(data.train_dataloader()))[0].shape == (4, 1, 8, 8)


# messages


def messages():
    """Every text of the package, with … in the place of what is put into it."""
    for path in (ROOT / "lit_gans").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_the_messages_of_the_page_on_troubles_are_those_of_the_program():
    told = [row.split(" | ")[0] for row in (DOCS / "troubleshooting.md").read_text("utf-8").splitlines()]
    quoted = [text for row in told if row.startswith("| `") for text in re.findall(r"`([^`]+)`", row)]
    known, lacking = [re.sub(r"\s+", " ", text) for text in messages()], []
    for text in quoted:
        parts = [part.strip() for part in text.split("…") if len(part.strip()) > 3]
        if " " in text and not all(any(part in other for other in known) for part in parts):
            lacking.append(text)
    assert len(quoted) > 40
    assert not lacking


# commands


def commands(path):
    """The commands of ours in the blocks of a page, each as the words that follow the program."""
    for language in ("", "bash", "sh"):
        for _, text in blocks(path, language):
            for line in text.replace("\\\n", " ").splitlines():
                found = re.search(r"(?:python -m lit_gans|-m lit_gans|lit-gans) ([a-z].*)", line)
                if found and not line.startswith("pip install lit-gans"):
                    yield found[1]


COMMANDED = [(path, command) for path in PAGES for command in commands(path)]


@pytest.mark.parametrize(("path", "command"), COMMANDED, ids=lambda it: it[:50] if isinstance(it, str) else name_of(it))
def test_a_command_exists_with_its_options_and_files(path, command, monkeypatch):
    monkeypatch.chdir(ROOT)
    name, *words = shlex.split(command, comments=True)
    assert name in COMMANDS
    words = spelled(words)
    check_options(name, words, own_options(name))
    if name in ("fit", "validate", "test", "tune", "profile"):
        check_training(name, words)
    made = {word for _, other in COMMANDED for word in re.findall(r"(?:-o|--output) (\S+)", other)}
    for config in values_of(words, "config"):
        assert Path(config).is_file() or shipped(config) or config in made, config


def test_commands_are_found():
    assert len(COMMANDED) > 60
    assert {command.split()[0] for _, command in COMMANDED} >= {*COMMANDS} - {"test"}

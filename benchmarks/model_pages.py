"""The pages on the models, their tables, and the tables of results, written from the sources.

    python -m benchmarks.model_pages

What these say comes from docstrings, signatures, configs, two steps of training on toy data and the results in
benchmarks/results. Writes docs/models/, docs/formulas.md, the table of models in README.md and the tables of
docs/results.md and docs/before-training.md, all of which tests/test_docs.py compares with the sources.
"""

import ast
import functools
import inspect
import json
import logging
import re
import statistics
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

import lit_gans.models
from benchmarks.zoo import RESULTS, SUITES, best_of, over_seeds
from lit_gans.commands.listing import FAMILIES
from lit_gans.game.module import GameModule
from lit_gans.models import GAN
from lit_gans.preflight.compatibility import compatibility_table

ROOT = Path(__file__).parents[1]
MODELS = [name for names in FAMILIES.values() for name in names]
GITHUB = "https://github.com/lit-gans/lit-gans/blob/main"
DEFAULTS = "test_every_model_has_its_papers_defaults"
TERMS = {
    "real": "loss on real samples",
    "fake": "loss on generated samples",
    "adversarial": "how little generated samples convince the discriminator",
    "gradient_penalty": "the weighted gradient penalty",
    "lipschitz_penalty": "the weighted one-sided gradient penalty",
    "relativistic": "the loss of paired samples",
    "r1": "the weighted penalty at real samples",
    "r2": "the weighted penalty at generated samples",
    "real_class": "weighted cross entropy of the classes of real images",
    "fake_class": "weighted cross entropy of the classes of generated images",
    "class": "the weighted D2D-CE loss",
    "categorical": "weighted cross entropy of the categorical codes",
    "continuous": "weighted negative log density of the continuous codes",
    "rotation": "weighted cross entropy of the angles",
    "pulling_away": "the weighted pulling-away term",
    "orthogonal": "the weighted orthogonal penalty",
    "path_length": "the weighted path length penalty, at steps where it is due",
    "l1": "the weighted mean absolute difference to the target",
    "pixel": "the weighted distance of pixels to the target",
    "perceptual": "the weighted distance of features to those of the target",
    "adversarial_a": "how little generated pictures of A convince their discriminator",
    "adversarial_b": "how little generated pictures of B convince their discriminator",
    "real_a": "loss on real pictures of A",
    "fake_a": "loss on generated pictures of A",
    "real_b": "loss on real pictures of B",
    "fake_b": "loss on generated pictures of B",
    "cycle_a": "the weighted distance to A after the way there and back",
    "cycle_b": "the weighted distance to B after the way there and back",
    "identity_a": "the weighted change of pictures that are of A already",
    "identity_b": "the weighted change of pictures that are of B already",
    "nce": "the weighted cross entropy of finding a patch of the source again",
    "identity": "the same of pictures that are of the target's kind already",
    "coarse": "the weighted mean absolute difference of the first pass to the target",
    "fine": "the weighted mean absolute difference of the second pass to the target",
    "loss": "the sum of the terms above",
    "k": "k, weight of generated samples in the discriminator's loss",
    "m_global": "the measure of convergence",
    "mutual_information": "lower bound of the mutual information, in nats",
    "kimg": "real images seen so far, in thousands",
}


def page(name: str) -> str:
    """The page of one model."""
    cls = getattr(lit_gans.models, name)
    stem = stem_of(name)
    title, paper = paper_of(cls)
    says = sections(cls)
    source = f"[Source]({GITHUB}/lit_gans/models/{stem}.py), [arguments](../api/models.md#lit_gans.models.{name})"
    parts = [
        f"# {title}",
        f"<!-- written by python -m benchmarks.model_pages, from lit_gans/models/{stem}.py -->",
        f"{says['summary']}\n\n{linked(paper)} {source}",
        f"## Objective\n\n{says['objective']}",
        f"## When to use it\n\n{says['When to use it']}",
        f"## Good to know\n\nWhen not to use it: {says['When not'][:1].lower()}{says['When not'][1:]}",
        f"## Logged quantities\n\n{logged(name)}",
        f"## Defaults\n\n{defaults(cls)}",
        f"## Differs from the paper\n\n{says['Differs from the paper']}",
        f"## How to run it\n\n{runs(stem)}",
        f"## Results\n\n<!-- results -->\n{results(name)}\n<!-- /results -->",
    ]
    return "\n\n".join(parts) + "\n"


def stem_of(name: str) -> str:
    """The name of the file of a model, and of its page."""
    return str(getattr(lit_gans.models, name).__module__.rpartition(".")[2])


def paper_of(cls: type) -> tuple[str, str]:
    """A model's title, and the citation of its paper."""
    first = (sys.modules[cls.__module__].__doc__ or "").strip().partition("\n")[0]
    title, _, paper = first.partition(": ")
    return title, paper


def sections(cls: type) -> dict[str, str]:
    """First sentence, objective, differences from the paper, and use, of a class docstring, as markdown."""
    doc = re.split(r"^(?:Args|Raises|Example):", inspect.cleandoc(cls.__doc__ or ""), flags=re.MULTILINE)[0]
    summary, _, body = doc.strip().partition("\n\n")
    heads = ("Differs from the paper", "When to use it", "When not", "Family")
    objective, *rest = re.split(rf"({'|'.join(heads)}):\s+", body)
    says = {"summary": inline(" ".join(summary.split())), "objective": markdown(objective)}
    for head, text in zip(rest[::2], rest[1::2], strict=True):
        text = inline(" ".join(text.partition("Arguments as of")[0].split()))
        says[head] = text if text[:1] == "γ" else capital(text)
    return says


def capital(sentence: str) -> str:
    """A sentence as it begins."""
    return sentence[:1].upper() + sentence[1:]


def markdown(text: str) -> str:
    """A docstring's paragraphs and displayed formulas as GitHub's markdown."""
    parts = re.split(r"^\.\. math::[ \n]*((?:.*\n(?=    ))*.*\n?)", f"{text.strip()}\n", flags=re.MULTILINE)
    blocks = []
    for index, part in enumerate(parts):
        lines = [line.strip() for line in part.strip().splitlines()]
        if index % 2:
            blocks.append("\n".join(["```math", *lines, "```"]))
        else:
            blocks += [inline(" ".join(paragraph.split())) for paragraph in part.split("\n\n") if paragraph.strip()]
    return "\n\n".join(blocks)


def inline(text: str) -> str:
    """Formulas and names within a sentence."""
    return re.sub(r"``([^`]+)``", r"`\1`", re.sub(r":math:`([^`]+)`", r"$\1$", text))


def linked(paper: str) -> str:
    """A citation with its arXiv number as a link."""
    return re.sub(r"arXiv:(\d{4}\.\d{5}|\d{4}\.\d{4})", r"[arXiv:\1](https://arxiv.org/abs/\1)", paper)


class Keys(Callback):
    """Notes the keys that a run logs."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Append those of this step."""
        self.keys += [key for key in trainer.callback_metrics if key not in self.keys]


@functools.cache
def keys(name: str) -> tuple[str, ...]:
    """What a model logs while training on toy data, in order, until both players have been updated."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    import pictures
    import toys

    log = logging.getLogger("lightning.pytorch")
    translates = issubclass(getattr(lit_gans.models, name), lit_gans.models.Translation)
    level, noted, model = log.level, Keys(), pictures.build(name) if translates else toys.build(name)
    log.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            steps = max(2, model.n_critic)
            run = toys.trainer(folder, max_steps=steps, log_every_n_steps=1, limit_val_batches=0, callbacks=[noted])
            run.fit(model, pictures.loader(name) if translates else toys.loader())
    finally:
        log.setLevel(level)
    return tuple(noted.keys)


def logged(name: str) -> str:
    """A table of what is logged."""
    lines = ["| key | |", "|---|---|"]
    players = {"train/d_": 0, "train/g_": 1}
    for key in sorted(keys(name), key=lambda key: (players.get(key[:8], 2), key.endswith("_loss"))):
        term = re.sub(r"^train/(?:[dg]_)?", "", key)
        if not term.startswith("share_"):
            lines.append(f"| `{key}` | {TERMS[term]} |")
    if shares := [f"`{key}`" for key in keys(name) if key.startswith("train/share_")]:
        lines.append(f"| {', '.join(shares)} | share of each term in the generator's gradient at its pictures |")
    return "\n".join([*lines, "", "`val/d_loss` and `val/g_loss` are the same sums on held-out data."])


def defaults(cls: type) -> str:
    """A table of a model's own arguments and of those whose default is its own."""
    own, seen = list[str](), set[str]()
    plain = inspect.signature(GameModule).parameters
    for base in cls.__mro__:
        if base is GameModule and cls is not GAN:
            break
        if "__init__" not in vars(base):
            continue
        for name, parameter in inspect.signature(base).parameters.items():
            if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) or name in seen:
                continue
            seen.add(name)
            inherited = base is not cls and not issubclass(GAN, base)
            if name in ("generator", "discriminator") or (inherited and parameter.default == default_of(plain, name)):
                continue
            own.append(f"| `{name}` | {shown(parameter.default)} | {meaning(cls, name)} |")
        if base is GameModule:
            break
    table = "\n".join(["| argument | default | |", "|---|---|---|", *own])
    rest = ["All others are those of [GAN](gan.md)."] if cls is not GAN else []
    return "\n\n".join([table, *rest] if own else rest)


def default_of(parameters: Any, name: str) -> Any:
    """The default of one of the parameters; nothing that any default equals if it is none of them."""
    return parameters[name].default if name in parameters else object()


def shown(default: Any) -> str:
    """A default as one writes it."""
    if default is inspect.Parameter.empty:
        return "to be given"
    return "`{}`".format(re.sub(r"e-0(\d)", r"e-\1", repr(default)))


def meaning(cls: type, name: str) -> str:
    """The line on an argument in the nearest docstring that has one."""
    for base in cls.__mro__:
        args = re.split(r"^Args:\n", inspect.cleandoc(base.__doc__ or ""), flags=re.MULTILINE)[1:]
        for names, text in re.findall(r"^    ([\w, ]+): (.*(?:\n        .*)*)", args[0], re.MULTILINE) if args else ():
            if name in names.split(", "):
                return inline(" ".join(text.split())).replace("|", "\\|")
    return ""


def runs(stem: str) -> str:
    """What each config says of itself, and its command."""
    blocks = []
    for path in sorted((ROOT / "configs" / stem).glob("*.yaml")):
        header = [line[2:] for line in path.read_text("utf-8").splitlines() if line.startswith("# ")]
        command = next(line for line in header if line.startswith("python -m"))
        blocks.append(f"{' '.join(header[: header.index(command)])}\n\n```\n{command}\n```")
    return "\n\n".join(blocks)


def results(name: str) -> str:
    """A table of what the suites in benchmarks/results measured, at best and at the end of training."""
    lines = []
    for suite in SUITES:
        if rows := runs_of(suite).get(name):
            best, measured = cell(suite, name, None, best=True), row_of([last(row) for row in rows])
            lines.append(f"| {suite} | {len(rows)} | `{SUITES[suite].key}` {best} | {measured} |")
    if not lines:
        return "None yet."
    return "\n".join(["| suite | seeds | best | after the last step |", "|---|---|---|---|", *lines])


@functools.cache
def runs_of(suite: str) -> dict[str, list[dict[str, Any]]]:
    """The runs of a suite that came to an end, by variant."""
    path = RESULTS / f"{suite}.json"
    variants: dict[str, list[dict[str, Any]]] = {}
    for row in json.loads(path.read_text("utf-8"))["rows"] if path.is_file() else []:
        if last(row):
            variants.setdefault(row["variant"], []).append(row)
    return variants


def summary() -> str:
    """The tables of results: every variant in every suite that has it; then the suites of few variants."""
    heads = ["ring, 8 modes", "grid, 25 modes", "grid, near a mode", "digits, best", "digits, last"]
    heads += ["MNIST, best", "MNIST, last"]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for name in MODELS:
        cells = [cell("ring", name, "modes"), cell("grid", name, "modes"), cell("grid", name, "high_quality")]
        cells += [cell(suite, name, None, best) for suite in ("digits", "mnist") for best in (True, False)]
        if any(cells):
            lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    for suite, head in (
        ("limited", "600 images of MNIST, `fd_mnist`"),
        ("stacked", "stacked MNIST, modes of 1,000"),
        ("cifar10", "CIFAR-10, `fd_resnet20`"),
    ):
        if variants := runs_of(suite):
            lines += ["", f"| {head} | best | last | seeds | steps |", "|---|---|---|---|---|"]
        for name, rows in variants.items():
            both = " | ".join(cell(suite, name, None, best) for best in (True, False))
            lines.append(f"| `{name}` | {both} | {len(rows)} | {rows[0]['steps']:,} |")
    return "\n".join(lines)


def cell(suite: str, name: str, metric: str | None, best: bool = False) -> str:
    """Mean and deviation over the seeds of what a suite is judged by, or of another metric; empty without runs."""
    if not (rows := runs_of(suite).get(name)):
        return ""
    rules = SUITES[suite]
    return over_seeds([best_of(rules, row) if best else last(row)[metric or rules.key] for row in rows])


def last(row: dict[str, Any]) -> dict[str, float]:
    """The numbers that a run ended with: the last entry of its history, or those of the row itself."""
    if "history" in row:
        return row["history"][-1][1] if row["history"] and "error" not in row else {}
    plain = {key: value for key, value in row.items() if key not in ("seed", "steps", "seconds")}
    return {key: value for key, value in plain.items() if isinstance(value, int | float) and value is not True}


def row_of(measured: list[dict[str, float]]) -> str:
    """Means and standard deviations over the seeds, as one cell."""
    cells = []
    for metric in measured[0]:
        values = [values[metric] for values in measured if metric in values]
        deviation = f" ± {statistics.stdev(values):.3g}" if len(values) > 1 else ""
        cells.append(f"`{metric}` {statistics.mean(values):.3g}{deviation}")
    return ", ".join(cells)


def formulas() -> str:
    """The table of what compares each formula with the paper's."""
    sources = [ROOT / "tests" / "models" / f"test_{what}.py" for what in ("papers", "claims")]
    tests = [node for path in sources for node in ast.parse(path.read_text("utf-8")).body]
    lines = [
        "# Every formula equals the paper's",
        "<!-- written by python -m benchmarks.model_pages -->",
        "Twelve steps of each model equal those of a loop in plain PyTorch, which shares no code with the library: "
        f"[tests/models/test_parity.py]({GITHUB}/tests/models/test_parity.py) and, of those that make pictures of "
        f"pictures, [test_translation.py]({GITHUB}/tests/models/test_translation.py), "
        "`test_twelve_steps_equal_a_plain_loop`. What closed forms, such as those of the Dirac-GAN (Mescheder et al. "
        "2018: G(z) = θ, D(x) = ψx), and the papers' own claims say beyond it is in "
        f"[tests/models/test_papers.py]({GITHUB}/tests/models/test_papers.py) and "
        f"[test_claims.py]({GITHUB}/tests/models/test_claims.py); `{DEFAULTS}` compares the settings of all.",
        "",
        "| model | terms of the discriminator | of the generator | tests beyond the loop |",
        "|---|---|---|---|",
    ]
    for name in MODELS:
        stem = stem_of(name)
        found = keys(name)
        terms = [
            ", ".join(key[8:] for key in found if key.startswith(f"train/{player}_") and not key.endswith("_loss"))
            for player in "dg"
        ]
        beyond = [f"`{test}`" for test in tests_of(tests, name)]
        lines.append(f"| [{name}](models/{stem}.md) | {terms[0]} | {terms[1]} | {', '.join(beyond)} |")
    return "\n".join(lines).replace("\n<!--", "\n\n<!--").replace("-->\n", "-->\n\n") + "\n"


def tests_of(nodes: list[ast.stmt], name: str) -> list[str]:
    """The tests whose code or parameters name a class."""
    tests = [node for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    named = {
        test.name: {getattr(node, "id", getattr(node, "value", None)) for node in ast.walk(test)} for test in tests
    }
    return [test for test, names in named.items() if name in names and test != DEFAULTS]


def models_table(docs: str, brief: bool = False) -> str:
    """All models by family, each with its paper, what it is, and its configs.

    Args:
        docs: Path from the page that holds the table to docs/models.
        brief: Whether what it is ends where its sentence has a colon.
    """
    lines = ["| class | paper | what it is | configs |", "|---|---|---|---|"]
    for family, names in FAMILIES.items():
        lines.append(f"| *{capital(family)}* | | | |")
        for name in names:
            told = what_it_is(name).partition(": " if brief else "\n")[0]
            lines.append(f"| {entry(name, docs)} | {told} | {configs_of(name)} |")
    return "\n".join(lines)


def entry(name: str, docs: str) -> str:
    """Two cells: a model, with a link to its page, and its paper."""
    _, paper = paper_of(getattr(lit_gans.models, name))
    number = re.search(r"arXiv:(\d{4}\.\d{4,5})", paper)
    assert number is not None, f"{name} cites no arXiv number"
    return f"[`{name}`]({docs}{stem_of(name)}.md) | [{paper.partition(',')[0]}](https://arxiv.org/abs/{number[1]})"


def what_it_is(name: str) -> str:
    """The first sentence of the docstring, as a phrase."""
    says = sections(getattr(lit_gans.models, name))["summary"].rstrip(".")
    return re.sub(r" \((?:algorithm|section)[^)]*\)$", "", says).partition(", and the root")[0]


def configs_of(name: str) -> str:
    """The names of the configs that play a model, as the command line takes them."""
    paths = [*sorted((ROOT / "configs" / stem_of(name)).glob("*.yaml")), ROOT / "configs" / "quickstart.yaml"]
    named = [path for path in paths if re.search(rf"^  class_path: {name}\b", path.read_text("utf-8"), re.MULTILINE)]
    return ", ".join(f"`{path.relative_to(ROOT / 'configs').with_suffix('').as_posix()}`" for path in named)


def index() -> str:
    """The page that lists the models: what each is, when to use it, and when not."""
    lines = [
        "# Models",
        "",
        "<!-- written by python -m benchmarks.model_pages -->",
        "",
        "Each model is one paper: a class that takes your two networks. Families and papers stand in the order in "
        "which they were published. The page of a model has its objective, what it logs, its defaults, where it "
        "differs from its paper, the commands that run it, and its results.",
    ]
    for family, names in FAMILIES.items():
        lines += ["", f"## {capital(family)}", "", "| class | paper | when to use it | when not |", "|---|---|---|---|"]
        for name in names:
            says = sections(getattr(lit_gans.models, name))
            lines.append(f"| {entry(name, '')} | {says['When to use it']} | {says['When not']} |")
    lines += ["", "## What they are, and their configs", "", models_table("")]
    return "\n".join(lines) + "\n"


def between(mark: str, text: str, content: str) -> str:
    """A text with other content between the marks ``<!-- mark -->`` and ``<!-- /mark -->``."""
    pattern = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", re.DOTALL)
    assert len(pattern.findall(text)) == 1, f"there must be one pair of marks {mark}"
    return pattern.sub(lambda found: f"{found[1]}{content}\n{found[2]}", text)


TABLES = {
    "README.md": ("models", lambda: models_table("docs/models/", brief=True)),
    "docs/results.md": ("zoo", summary),
    "docs/before-training.md": ("compatibility", compatibility_table),
}
"""Pages written by hand that hold a table between marks."""


def pages() -> dict[str, str]:
    """The pages that are written as a whole, by their paths, but for those of the models."""
    return {"docs/formulas.md": formulas(), "docs/models/index.md": index()}


def main() -> None:
    (ROOT / "docs" / "models").mkdir(exist_ok=True)
    for name in MODELS:
        (ROOT / "docs" / "models" / f"{stem_of(name)}.md").write_text(page(name), "utf-8")
    for path, text in pages().items():
        (ROOT / path).write_text(text, "utf-8")
    for path, (mark, table) in TABLES.items():
        (ROOT / path).write_text(between(mark, (ROOT / path).read_text("utf-8"), table()), "utf-8")


if __name__ == "__main__":
    main()

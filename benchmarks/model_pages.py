"""One page for each model, and one table of all formulas, written from the sources.

    python -m benchmarks.model_pages

What a page says comes from docstrings, signatures, configs, two steps of training on toy data and the results in
benchmarks/results; only the sentence on when to use a model is written here. Writes docs/models/<variant>.md,
docs/formulas.md and the tables of results in README.md, which tests/test_docs.py compares with the sources.
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

ROOT = Path(__file__).parents[1]
MODELS = [name for names in FAMILIES.values() for name in names]
ZOO = re.compile(r"(<!-- zoo -->\n).*?(\n<!-- /zoo -->)", re.DOTALL)
DEFAULTS = "test_every_model_has_its_papers_defaults"
WHEN = {
    "GAN": "As the first thing to try on small data, and as the measure of all others.",
    "MinimaxGAN": "To study the game, above all how the generator's gradient vanishes; never to draw images.",
    "LSGAN": "Where the discriminator wins so clearly that logarithms saturate; a safe, cheap replacement of GAN.",
    "HingeGAN": "As the plain loss of large residual networks, with spectral norm or a penalty beside it.",
    "RaGAN": "With small batches or large images, on which GAN's discriminator is soon sure of everything.",
    "WGAN": "To see the distance fall while training, or to learn why the penalty replaced the clipping.",
    "WGANGP": "Where stability matters more than speed, with networks that nobody has tuned.",
    "WGANLP": "As WGAN-GP, where results depend too much on the weight of its penalty.",
    "EBGAN": "Where reconstruction is a natural measure of the data, or no single logit should decide.",
    "BEGAN": "For smooth faces with one knob between variety and sharpness, and a measure of convergence.",
    "SNGAN": "For residual networks without labels: no penalty to pay for, hardly anything to tune.",
    "DRAGAN": "Where GAN collapses and n_critic = 1 should stay: cheaper than WGAN-GP, with DCGAN's networks.",
    "R3GAN": "As the modern choice: a loss that converges in theory, with networks free of tricks.",
    "CGAN": "For few classes and small networks, where the label can simply be one more input.",
    "ACGAN": "For classes that are easily told apart, if the discriminator should classify, too.",
    "ProjectionGAN": "For many classes and residual networks, without a classifier's bias towards easy samples.",
    "ReACGAN": "For many classes where ACGAN's training breaks down and relations between samples should count.",
    "InfoGAN": "To find factors of the data without labels: classes, slant, width.",
    "SSGAN": "Without labels, where SNGAN's discriminator forgets; images must have an upright.",
    "UnrolledGAN": "Against mode collapse on small data, where k steps ahead can be paid for.",
    "PacGAN": "Against mode collapse at almost no cost, with any discriminator that takes more channels.",
    "DCGAN": "For convolutional networks up to 64 pixels, with an initialisation and rates that are well tried.",
    "SAGAN": "For images whose distant parts must agree, by label or without, from 32 pixels up.",
    "BigGAN": "For many classes, large batches and several GPUs.",
    "StyleGAN2": "For one kind of image, such as faces, at high resolution, or where w is to be edited.",
}
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
    "loss": "the sum of the terms above",
    "k": "k, weight of generated samples in the discriminator's loss",
    "m_global": "the measure of convergence",
    "mutual_information": "lower bound of the mutual information, in nats",
    "kimg": "real images seen so far, in thousands",
}


def page(name: str) -> str:
    """The page of one model."""
    cls = getattr(lit_gans.models, name)
    stem = cls.__module__.rpartition(".")[2]
    title, _, paper = (sys.modules[cls.__module__].__doc__ or "").strip().partition("\n")[0].partition(": ")
    summary, objective, differs = sections(cls)
    parts = [
        f"# {title}",
        f"<!-- written by python -m benchmarks.model_pages, from lit_gans/models/{stem}.py -->",
        f"{summary}\n\n{linked(paper)} [Source](../../lit_gans/models/{stem}.py)",
        f"## Objective\n\n{objective}",
        f"## When to use it\n\n{WHEN[name]}",
        f"## Logged quantities\n\n{logged(name)}",
        f"## Defaults\n\n{defaults(cls)}",
        f"## Differs from the paper\n\n{differs}",
        f"## How to run it\n\n{runs(stem)}",
        f"## Results\n\n<!-- results -->\n{results(name)}\n<!-- /results -->",
    ]
    return "\n\n".join(parts) + "\n"


def sections(cls: type) -> tuple[str, str, str]:
    """First sentence, objective, and differences from the paper, of a class docstring, as markdown."""
    doc = re.split(r"^(?:Args|Raises|Example):", inspect.cleandoc(cls.__doc__ or ""), flags=re.MULTILINE)[0]
    summary, _, body = doc.strip().partition("\n\n")
    objective, _, differs = body.partition("Differs from the paper:")
    differs = inline(" ".join(differs.partition("Arguments as of")[0].split()))
    return inline(" ".join(summary.split())), markdown(objective), differs if differs[:1] == "γ" else capital(differs)


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
    return re.sub(r"``([^`]+)``", r"`\1`", re.sub(r":math:`([^`]+)`", r"$`\1`$", text))


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
    from toys import build, loader, trainer

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    noted, model = Keys(), build(name)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps = max(2, model.n_critic)
        run = trainer(folder, max_steps=steps, log_every_n_steps=1, limit_val_batches=0, callbacks=[noted])
        run.fit(model, loader())
    return tuple(noted.keys)


def logged(name: str) -> str:
    """A table of what is logged."""
    lines = ["| key | |", "|---|---|"]
    players = {"train/d_": 0, "train/g_": 1}
    for key in sorted(keys(name), key=lambda key: (players.get(key[:8], 2), key.endswith("_loss"))):
        term = re.sub(r"^train/(?:[dg]_)?", "", key)
        lines.append(f"| `{key}` | {TERMS[term]} |")
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
    """The README's tables: every variant in every suite that has it; then the suites of few variants."""
    heads = ["ring, 8 modes", "grid, 25 modes", "grid, near a mode", "digits, best", "digits, last"]
    heads += ["MNIST, best", "MNIST, last"]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for name in MODELS:
        cells = [cell("ring", name, "modes"), cell("grid", name, "modes"), cell("grid", name, "high_quality")]
        cells += [cell(suite, name, None, best) for suite in ("digits", "mnist") for best in (True, False)]
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
        "[tests/models/test_parity.py](../tests/models/test_parity.py), "
        "`test_twelve_steps_equal_a_plain_loop`. What closed forms, such as those of the Dirac-GAN (Mescheder et al. "
        "2018: G(z) = θ, D(x) = ψx), and the papers' own claims say beyond it is in "
        "[tests/models/test_papers.py](../tests/models/test_papers.py) and "
        f"[test_claims.py](../tests/models/test_claims.py); `{DEFAULTS}` compares the settings of all.",
        "",
        "| model | terms of the discriminator | of the generator | tests beyond the loop |",
        "|---|---|---|---|",
    ]
    for name in MODELS:
        stem = getattr(lit_gans.models, name).__module__.rpartition(".")[2]
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


def main() -> None:
    (ROOT / "docs" / "models").mkdir(exist_ok=True)
    for name in MODELS:
        stem = getattr(lit_gans.models, name).__module__.rpartition(".")[2]
        (ROOT / "docs" / "models" / f"{stem}.md").write_text(page(name), "utf-8")
    (ROOT / "docs" / "formulas.md").write_text(formulas(), "utf-8")
    readme = (ROOT / "README.md").read_text("utf-8")
    (ROOT / "README.md").write_text(ZOO.sub(lambda found: f"{found[1]}{summary()}{found[2]}", readme), "utf-8")


if __name__ == "__main__":
    main()

"""What the site needs beside its pages: formulas as MathML, pictures of the benchmarks, docstrings as markdown.

mkdocs calls the functions ``on_...``, and mkdocstrings the class; both are named in mkdocs.yml.
"""

import html
import re
from pathlib import Path
from typing import Any

from griffe import Extension, Object
from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

from lit_gans.commands.listing import FAMILIES

PAGES = Path(__file__).parent
PICTURES = PAGES.parent / "benchmarks" / "results"
_GAP = '<mspace width="0.167em"/>'
PATH = re.compile(r"(?:\.\./)+benchmarks/results/(\w+\.png)")


def on_config(config: Any) -> Any:
    """Add a page for each model to the navigation, family by family."""
    for entry in config.nav:
        if "Models" in entry:
            pages = {_title(path): f"models/{path.name}" for path in (PAGES / "models").glob("*.md")}
            names = [name for group in FAMILIES.values() for name in group]
            order = {name.lower(): number for number, name in enumerate(names)}
            titles = sorted(pages, key=lambda title: order.get(title.replace("-", "").lower(), len(order)))
            entry["Models"] += [{title: pages[title]} for title in titles if pages[title] != "models/index.md"]
    return config


def _title(path: Path) -> str:
    return path.read_text("utf-8").partition("\n")[0].removeprefix("# ")


def on_files(files: Files, config: Any) -> Files:
    """Add the pictures that lie beside the results of the benchmarks, as ``pictures/``."""
    for path in sorted(PICTURES.glob("*.png")):
        files.append(File.generated(config, f"pictures/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Have the pages, which show pictures where these lie in the repository, show the copies.

    The reason why a block of code is not run as a test is for the tests, and not for the site.
    """
    markdown = re.sub(r'^```python notest=".*"$', "```python", markdown, flags=re.MULTILINE)
    return PATH.sub(lambda found: "../" * page.file.src_uri.count("/") + f"pictures/{found[1]}", markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Replace what arithmatex leaves for a script to typeset by MathML, which browsers typeset themselves."""
    content = re.sub(r'<span class="arithmatex">\\\((.*?)\\\)</span>', lambda found: _typeset(found[1], False), content)
    block = r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>'
    return re.sub(block, lambda found: _typeset(found[1], True), content, flags=re.DOTALL)


def _typeset(formula: str, display: bool) -> str:
    """MathML; a displayed formula has a line for each of its parts that wide gaps set apart."""
    mode = "block" if display else "inline"
    parts = html.unescape(formula).split(r"\qquad") if display else [html.unescape(formula)]
    lines = [re.sub(r"<mi>(log|max|min)</mi>", r"\g<0>" + _GAP, convert(part.strip(), display=mode)) for part in parts]
    return "".join(f'<div class="formula">{line}</div>' for line in lines) if display else lines[0]


class MarkdownDocstrings(Extension):
    """Docstrings hold formulas and tables as reStructuredText has them; the site's are markdown."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Translate the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = translated(obj.docstring.value)


def translated(text: str) -> str:
    """Displayed and inline formulas, simple tables, doctests, and arguments that are described together."""
    text = re.sub(
        r"^\.\. math::[ \n]*((?:.*\n(?=    ))*.*\n?)",
        lambda found: "```math\n" + "\n".join(line.strip() for line in found[1].strip().splitlines()) + "\n```\n",
        text,
        flags=re.MULTILINE,
    )
    text = re.sub(r":math:`([^`]+)`", r"$\1$", text)
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
    together = r"^    (\w+), (\w+): (.*(?:\n        .*)*)"
    text = re.sub(together, r"    \1: \3\n    \2: \3", text, flags=re.MULTILINE)
    rule = r"^=+ +=+\n((?:.+\n)+)=+ +=+$"
    return re.sub(rule, lambda found: _table(found[1]), text, flags=re.MULTILINE)


def _table(rows: str) -> str:
    joined = re.sub(r"\n +", " ", rows.strip("\n"))  # a line that is indented goes on with the cell above
    cells = [re.split(r" {2,}", row.strip(), maxsplit=1) for row in joined.splitlines()]
    return "\n".join(["| | |", "|---|---|", *(f"| {' | '.join(row)} |" for row in cells)])

"""``list``: models, data sets and configs, read from the source without importing it."""

import argparse
import ast
import re
from pathlib import Path

__all__ = ("CONFIGS", "FAMILIES", "config_lines", "data_lines", "main", "model_lines")

_PACKAGE = Path(__file__).parents[1]
CONFIGS = _PACKAGE / "_configs" if (_PACKAGE / "_configs").is_dir() else _PACKAGE.parent / "configs"
CONFIG_TITLE = "Configs, which fit --config takes by name from anywhere, with or without configs/ and .yaml"
_TITLE = re.compile(r'r?"""([\w-]+): ')
_NUMBER = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
_FAMILY = re.compile(r"^    Family: (.+)\.$", re.MULTILINE)


def main(command: str, words: list[str]) -> None:
    """Print the lists."""
    argparse.ArgumentParser(prog=f"python -m lit_gans {command}", description=__doc__).parse_args(words)
    papers = model_lines()
    sections = {f"Models, {family}": {name: papers[name] for name in names} for family, names in FAMILIES.items()}
    for title, lines in (sections | {"Data sets": data_lines(), CONFIG_TITLE: config_lines()}).items():
        print(f"{title}:")
        width = max((len(name) for name in lines), default=0)
        print("\n".join(f"  {name:<{width}}  {text}".rstrip() for name, text in lines.items()), end="\n\n")


def model_lines() -> dict[str, str]:
    """Class name → authors and year, and when to use it: of each file in ``models`` that defines a model."""
    lines = {}
    for path in sorted((_PACKAGE / "models").glob("*.py")):
        if found := _paper(path.read_text(encoding="utf-8")):
            name, paper, doc = found
            use = re.search(r"When to use it: (.*?)\n\n", f"{doc}\n\n", re.DOTALL)
            told = f": {' '.join(use[1].split())}" if use else ""
            lines[name] = paper.partition(",")[0].rstrip(".") + told.rstrip(".")
    return lines


def _paper(text: str) -> tuple[str, str, str] | None:
    """The class that the first line of a source names, the paper it cites, and the docstring; None of other files."""
    tree = ast.parse(text)
    name, colon, paper = (ast.get_docstring(tree) or "").split("\n")[0].partition(": ")
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    public = next((cls for cls in classes if cls == name.replace("-", "")), None)
    return (public, paper, ast.get_docstring(classes[public]) or "") if colon and public else None


def _families() -> dict[str, tuple[str, ...]]:
    """What each paper is about → the models, by the line ``Family: ...`` in their docstrings, oldest paper first.

    Read line by line, as every command that names models needs it at once.
    """
    found = []
    for path in sorted((_PACKAGE / "models").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        title, number, family = _TITLE.match(text), _NUMBER.search(text), _FAMILY.search(text)
        if title and number and family:
            found.append((number[1], family[1], title[1].replace("-", "")))
    families: dict[str, tuple[str, ...]] = {}
    for _, about, name in sorted(found, key=lambda paper: paper[0]):
        families[about] = (*families.get(about, ()), name)
    return families


def data_lines() -> dict[str, str]:
    """Data set → what it is, from the table beside the DataModule."""
    tree = ast.parse((_PACKAGE / "data" / "catalog.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and node.value is not None and ast.unparse(node.target) == "DATASETS":
            return dict(ast.literal_eval(node.value))
    raise LookupError("lit_gans/data/catalog.py no longer defines DATASETS")


def config_lines() -> dict[str, str]:
    """Config path → the first comment line of the file."""
    return {
        f"configs/{path.relative_to(CONFIGS).as_posix()}": path.read_text(encoding="utf-8").split("\n")[0].lstrip("# ")
        for path in sorted(CONFIGS.rglob("*.yaml"))
    }


FAMILIES = _families()
"""What papers are about → models, families and models in the order of their papers."""

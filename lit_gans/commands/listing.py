"""``list``: models, data sets and configs, read from the source without importing it."""

import argparse
import ast
import re
from pathlib import Path

__all__ = ("CONFIGS", "FAMILIES", "config_lines", "data_lines", "main", "model_lines")

_PACKAGE = Path(__file__).parents[1]
CONFIGS = _PACKAGE / "_configs" if (_PACKAGE / "_configs").is_dir() else _PACKAGE.parent / "configs"
CONFIG_TITLE = "Configs, which fit --config takes by name from anywhere, with or without configs/ and .yaml"
FAMILIES = {
    "divergences": ("GAN", "MinimaxGAN", "LSGAN", "HingeGAN", "RaGAN"),
    "Wasserstein": ("WGAN", "WGANGP", "WGANLP"),
    "energy": ("EBGAN", "BEGAN"),
    "regularised": ("SNGAN", "DRAGAN", "R3GAN"),
    "labels and codes": ("CGAN", "ACGAN", "ProjectionGAN", "ReACGAN", "InfoGAN", "SSGAN"),
    "against collapse": ("UnrolledGAN", "PacGAN"),
    "architectures": ("DCGAN", "SAGAN", "BigGAN", "StyleGAN2"),
}  # what each paper is about, in the order in which models are listed


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
    """Class name → paper: the first line of each file in ``models`` that defines a model."""
    lines = {}
    for path in sorted((_PACKAGE / "models").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        name, colon, paper = (ast.get_docstring(tree) or "").split("\n")[0].partition(": ")
        classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        public = next((cls for cls in classes if cls == name.replace("-", "")), None)
        if colon and public:
            lines[public] = re.sub(r';[^"]*$', "", paper).rstrip(".")
    return lines


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

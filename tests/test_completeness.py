"""A model is finished when its five places exist; what was forgotten is named."""

import ast
import re
from pathlib import Path

import pytest

import lit_gans
import lit_gans.models
from lit_gans.commands.listing import FAMILIES

ROOT = Path(__file__).parents[1]
MODELS = sorted(
    name
    for name in lit_gans.models.__all__
    if isinstance(cls := getattr(lit_gans.models, name), type) and issubclass(cls, lit_gans.models.GAN)
)


def lacking(name, module, root=ROOT, exported=lit_gans.__all__):
    """What the model ``name``, defined in the module ``module``, has not yet, one line each."""
    stem = module.rpartition(".")[2]
    source, init = root / "lit_gans/models" / f"{stem}.py", root / "lit_gans/models/__init__.py"

    def text(path):
        return (root / path).read_text("utf-8") if (root / path).is_file() else ""

    tree = ast.parse(text(source))
    classes = {node.name: ast.get_docstring(node) or "" for node in tree.body if isinstance(node, ast.ClassDef)}
    doc = classes.get(name, "")
    title = (ast.get_docstring(tree) or "").partition(": ")
    configs = sorted((root / "configs" / stem).glob("*.yaml"))
    found = {
        f"lit_gans/models/{stem}.py that defines {name}": name in classes,
        f"a module docstring that begins '{name}: ' with the citation": title[0].replace("-", "") == name and title[2],
        "'.. math::' with the objective in its docstring": ".. math::" in doc,
        "'Differs from the paper:' in its docstring": "Differs from the paper:" in doc,
        "a line in lit_gans/models/__init__.py": f"import {name}\n" in text(init),
        f"{name!r} in lit_gans.__all__": name in exported,
        f"configs/{stem}/<dataset>.yaml": bool(configs),
        f"class_path: {name} in each of configs/{stem}/": all(
            re.search(rf"class_path: {name}\n", path.read_text("utf-8")) for path in configs
        ),
        f"tests in tests/models/test_papers.py, test_translation.py or test_{stem}.py": any(
            re.search(rf"\b{name}\b", text(f"tests/models/test_{file}.py")) for file in ("papers", "translation", stem)
        ),
        "'When to use it: ' in its docstring": "When to use it: " in doc,
        "'When not: ' in its docstring": "When not: " in doc,
        "'Family: ' in its docstring, a line of its own": bool(re.search(r"^Family: .+\.$", doc, re.MULTILINE)),
        "a page docs/models/, written by python -m benchmarks.model_pages": (root / f"docs/models/{stem}.md").is_file(),
        "a row in README.md, written by python -m benchmarks.model_pages": bool(
            re.search(rf"^\|.*\b{name}\b.*\|", text("README.md"), re.MULTILINE)
        ),
    }
    return [what for what, there in found.items() if not there]


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_complete(name):
    missing = lacking(name, getattr(lit_gans.models, name).__module__)
    assert not missing, f"{name} still needs " + "; ".join(missing)


PAPERS = """GAN MinimaxGAN LSGAN HingeGAN RaGAN WGAN WGANGP WGANLP EBGAN BEGAN SNGAN DRAGAN R3GAN CGAN ACGAN
ProjectionGAN ReACGAN InfoGAN SSGAN UnrolledGAN PacGAN DCGAN SAGAN BigGAN StyleGAN2
Pix2Pix CycleGAN CUT SRGAN ESRGAN ContextEncoder GatedInpainting"""


def test_the_thirty_two_papers_are_there_each_in_one_family():
    assert set(PAPERS.split()) <= set(MODELS)
    assert sorted(name for names in FAMILIES.values() for name in names) == MODELS


def test_public_names_resolve():
    for name in lit_gans.__all__:
        assert getattr(lit_gans, name) is not None
        assert name in dir(lit_gans)
    with pytest.raises(AttributeError, match=r"no attribute 'WGANPG'.*WGANGP"):
        lit_gans.WGANPG  # noqa: B018


@pytest.fixture
def half(tmp_path):
    """A repository to which everything for LSGAN was added; each test takes one thing away."""
    files = {
        "lit_gans/models/lsgan.py": '"""LSGAN: Mao."""\nclass LSGAN:\n    """.. math:: Differs from the paper: no\n\n'
        '    When to use it: often.\n\n    When not: never.\n\n    Family: divergences.\n    """',
        "lit_gans/models/__init__.py": "from lit_gans.models.lsgan import LSGAN\n",
        "configs/lsgan/mnist.yaml": "model:\n  class_path: LSGAN\n",
        "tests/models/test_papers.py": "from lit_gans import LSGAN",
        "docs/models/lsgan.md": "# LSGAN",
        "README.md": "| `LSGAN` | Mao et al. 2017 |",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_whole_variant_lacks_nothing(half):
    assert lacking("LSGAN", "lit_gans.models.lsgan", half, ("LSGAN",)) == []


@pytest.mark.parametrize(
    ("file", "gone", "named"),
    [
        ("lit_gans/models/lsgan.py", "LSGAN: Mao", "a module docstring that begins 'LSGAN: ' with the citation"),
        ("lit_gans/models/lsgan.py", ".. math::", "'.. math::' with the objective in its docstring"),
        ("lit_gans/models/lsgan.py", "Differs", "'Differs from the paper:' in its docstring"),
        ("lit_gans/models/__init__.py", "LSGAN\n", "a line in lit_gans/models/__init__.py"),
        ("configs/lsgan/mnist.yaml", "LSGAN", "class_path: LSGAN in each of configs/lsgan/"),
        ("configs/lsgan/mnist.yaml", None, "configs/lsgan/<dataset>.yaml"),
        (
            "tests/models/test_papers.py",
            "LSGAN",
            "tests in tests/models/test_papers.py, test_translation.py or test_lsgan.py",
        ),
        ("lit_gans/models/lsgan.py", "When to use it", "'When to use it: ' in its docstring"),
        ("lit_gans/models/lsgan.py", "When not", "'When not: ' in its docstring"),
        ("lit_gans/models/lsgan.py", "Family", "'Family: ' in its docstring, a line of its own"),
        ("docs/models/lsgan.md", None, "a page docs/models/, written by python -m benchmarks.model_pages"),
        ("README.md", "LSGAN", "a row in README.md, written by python -m benchmarks.model_pages"),
    ],
)
def test_exactly_what_was_forgotten_is_named(half, file, gone, named):
    path = half / file
    path.unlink() if gone is None else path.write_text(path.read_text().replace(gone, "", 1))
    assert lacking("LSGAN", "lit_gans.models.lsgan", half, ("LSGAN",)) == [named]


def test_a_name_that_is_not_exported_is_named(half):
    assert lacking("LSGAN", "lit_gans.models.lsgan", half, ()) == ["'LSGAN' in lit_gans.__all__"]

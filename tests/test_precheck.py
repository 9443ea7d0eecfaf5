"""What is refused before torch is imported, and that nothing is refused which the parsers accept."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
from lightning import Trainer
from torch import nn

import lit_gans.models
from lit_gans.commands import training
from lit_gans.commands.precheck import check, class_arguments, data_arguments, our_classes, trainer_arguments
from lit_gans.commands.training import Parser
from lit_gans.data import ImageDataModule
from lit_gans.errors import UserError
from lit_gans.models import GAN
from lit_gans.runs.trust import parameters_of

ROOT = Path(__file__).parents[1]
QUICKSTART = ["--config", str(ROOT / "configs/quickstart.yaml")]
MODELS = [name for name in lit_gans.models.__all__ if issubclass(getattr(lit_gans.models, name), GAN)]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


MISTAKES = {
    "fit --config nowhere.yaml": "no such file: nowhere.yaml",
    "fit --config quickstrat.yaml": "no such file: quickstrat.yaml: did you mean configs/quickstart.yaml?",
    "fit QUICKSTART --model WGANPG": "model: unknown class 'WGANPG': did you mean WGANGP",
    "fit QUICKSTART --model.g_lrr 1": "unknown argument 'g_lrr': did you mean g_lr",
    "fit QUICKSTART --model.generator MLPGeneratr": "model.generator: unknown class 'MLPGeneratr': did you mean MLPGen",
    "fit QUICKSTART --data.dataset digit": "data.dataset: unknown value 'digit': did you mean digits",
    "fit QUICKSTART --trainer.max_step 3": "unknown option 'trainer.max_step': did you mean trainer.max_steps",
    "fit QUICKSTART --ckpt_path nowhere.ckpt": "no checkpoint at nowhere.ckpt",
    "validate --ckpt_path nowhere.ckpt": "no checkpoint at nowhere.ckpt",
    "sample nowhere.ckpt": "no checkpoint at nowhere.ckpt",
    "sample --codes 1 - -0.5 --seed 3 nowhere.ckpt": "no checkpoint at nowhere.ckpt",
    "sample last.ckpt --sed 3": "unknown option 'sed': did you mean seed",
    "evaluate nowhere.ckpt": "no checkpoint at nowhere.ckpt",
    "evaluate --images nowhere --data.dataset digits": "there is nothing at nowhere",
    "evaluate last.ckpt --data.datset digits": "unknown option 'data.datset': did you mean data.dataset",
    "check-data --data.rot x": "unknown option 'data.rot': did you mean data.root",
    "fit QUICKSTART --data my_data.Faces": "data: my_data.Faces cannot be named here: for data of your own",
    "fit QUICKSTART --data.class_path=my_data.Faces": "data: my_data.Faces cannot be named here",
    "tune QUICKSTART --gg_lr 1 2": "unknown option 'gg_lr': did you mean g_lr",
    "profile QUICKSTART --step 20": "unknown option 'step': did you mean steps",
    "profile QUICKSTART --trainer.max_step 3": "unknown option 'trainer.max_step': did you mean trainer.max_steps",
    "compare one.json other.json": "no such file: one.json",
}


def words_of(line):
    return [word for part in line.split() for word in (QUICKSTART if part == "QUICKSTART" else [part])]


def run(*words):
    """A whole process: what it told, and what it imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "lit_gans", *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines if line.startswith("import time:")}
    return "\n".join(line for line in lines if not line.startswith("import time:")), imported


@pytest.mark.parametrize("line", MISTAKES)
def test_mistakes_are_told_before_torch_is_imported(line, monkeypatch):
    monkeypatch.delitem(sys.modules, "lit_gans.models")
    command, *words = words_of(line)
    with pytest.raises(UserError) as refusal:
        check(command, words)
    assert str(refusal.value).startswith(MISTAKES[line])


@pytest.mark.parametrize("line", ["fit QUICKSTART --model WGANPG", "sample nowhere.ckpt"])
def test_a_mistake_is_answered_without_what_takes_seconds_to_import(line):
    told, imported = run(*words_of(line))
    assert MISTAKES[line] in told
    assert not {"torch", "lightning", "numpy", "jsonargparse"} & imported


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("trianer: {max_steps: 1}", "unknown key 'trianer.max_steps': did you mean trainer.max_steps"),
        ("trainer: {max_stepz: 1}", "unknown key 'trainer.max_stepz': did you mean trainer.max_steps"),
        ("model: {class_path: GAN, init_args: {g_lrr: 1}}", "unknown argument 'g_lrr': did you mean g_lr"),
        ("data: {dataset: cifar11}", "data.dataset: unknown value 'cifar11': did you mean cifar10"),
        ("data: {class_path: my_data.Faces}", "data: my_data.Faces cannot be named here"),
        ("trainer: {callbacks+: [{class_path: SampelGrid}]}", "trainer.callbacks+: unknown class 'SampelGrid'"),
    ],
)
def test_mistakes_in_configs_too(text, told, monkeypatch):
    monkeypatch.delitem(sys.modules, "lit_gans.models")
    Path("broken.yaml").write_text(text)
    with pytest.raises(UserError) as refusal:
        check("fit", ["--config", "broken.yaml"])
    assert str(refusal.value).startswith(told)


# nothing that the parsers accept


@pytest.mark.parametrize("name", MODELS)
def test_arguments_read_from_the_source_are_those_of_the_class(name):
    assert class_arguments(name) == set(parameters_of(getattr(lit_gans.models, name))[0])


def test_arguments_of_trainer_and_data_are_those_of_the_classes():
    assert trainer_arguments() == set(inspect.signature(Trainer).parameters)
    assert trainer_arguments("fit") == {"ckpt_path", "weights_only"}
    assert data_arguments() == set(inspect.signature(ImageDataModule).parameters)


def test_every_option_of_the_parser_passes(monkeypatch):
    from lit_gans.commands.parsing import options_of

    known = []

    class Told(Parser):
        def parse_args(self, *args, **kwargs):
            known.extend(options_of(self._subcommands_action.choices["fit"]))
            raise InterruptedError

    with pytest.raises(InterruptedError):
        training.run("fit", [], parser=Told)
    assert len(known) > 50
    monkeypatch.delitem(sys.modules, "lit_gans.models")
    for name in known:
        if name not in ("config", "ckpt_path") and len(name) > 1:
            check("fit", [*QUICKSTART, f"--{name}=1"])


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_passes(path, monkeypatch):
    monkeypatch.delitem(sys.modules, "lit_gans.models")
    check("fit", ["--config", str(path)])


def test_short_names_of_other_libraries_pass(monkeypatch):
    def below(cls):
        return {cls}.union(*(below(inner) for inner in type.__subclasses__(cls)))

    names = {cls.__name__ for cls in below(nn.Module) if cls.__module__.startswith(("torch", "lightning", "lit_gans"))}
    monkeypatch.delitem(sys.modules, "lit_gans.models")
    assert set(our_classes()) & names
    for name in names - set(MODELS):
        check("fit", [*QUICKSTART, "--model.generator", name])


@pytest.mark.parametrize(
    "line",
    [
        "fit --model my_gan.MyGAN --model.depth 3 --config nothing: {}",
        "fit --import my_gan --model MyGAN --model.depth 3",
        "fit QUICKSTART --model.generator.init_args.whatever 3 --model.generator.other=4 --data.help",
        "fit QUICKSTART --trainer.callbacks+=my.Callback --trainer.callbacks.any 3 --data.dataset my.module:digits",
        "fit QUICKSTART --model=null --ckpt_path last",
        "sample last.ckpt --over -n4 --codes - -0.5 -o x.png",
    ],
)
def test_what_is_not_certain_is_passed_on(line, monkeypatch):
    monkeypatch.delitem(sys.modules, "lit_gans.models")
    Path("last.ckpt").touch()
    command, *words = words_of(line)
    check(command, words)

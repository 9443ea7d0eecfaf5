"""What the command line makes of null."""

import pytest
from refusals import refused

from lit_gans.cli import main
from lit_gans.commands import training
from lit_gans.commands.parsing import Parser, explain


@pytest.mark.parametrize("word", ["norm", "num_classes", "head", "init_args.norm"])
@pytest.mark.parametrize("null", ["=null", " null", "=None"])
def test_null_for_an_argument_of_a_network(word, null, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    models = []
    monkeypatch.setattr(training.CommandLine, "fit", lambda self, model, **kwargs: models.append(model))
    networks = ("--model.generator", "MLPGenerator", "--model.discriminator", "MLPDiscriminator")
    norm = () if "norm" not in word else ("--model.discriminator.norm=layer",)
    given = f"--model.discriminator.{word}{null}".split(" ")
    main(["fit", "--model", "GAN", *networks, *norm, *given, "--data.limit=64", "--trainer.accelerator=cpu"])
    assert models[0].discriminator.init_args[word.rpartition(".")[2]] is None


def test_none_is_null_nowhere_but_as_a_whole_value():
    parser = Parser()
    parser.add_argument("--name", type=str)
    assert parser.parse_args(["--name=x=None"]).name == "x=None"


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("nowhere_at_all.Net", "nowhere_at_all.Net cannot be imported: ModuleNotFoundError"),
        ("lit_gans.networks.MLPGenerater", "did you mean MLPGenerator"),
    ],
)
def test_a_wrong_class_path_tells_the_import_error_or_the_nearest_names(path, told):
    assert told in explain(f"Problem with given class_path '{path}':\n  - not a subclass")


@pytest.mark.parametrize(
    ("value", "told"), [("bf15", "did you mean bf16-mixed?"), ("sixteen", "one of 32-true, bf16-mixed, ")]
)
def test_a_wrong_precision_gets_the_recommended_one(value, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refused(capsys, "fit", "--config", "quickstart", "--trainer.precision", value)
    assert message.startswith(f"lit_gans: trainer.precision: unknown value '{value}': {told}")


@pytest.mark.parametrize("option", ["--lr", "--model.lr"])
def test_a_learning_rate_belongs_to_a_player(option, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refused(capsys, "fit", "--config", "quickstart", option, "1e-3")
    assert "g_lr" in message
    assert "d_lr" in message

"""Sizes, channels, latents and classes that are given once reach data, model and networks."""

from pathlib import Path

import pytest
import yaml
from jsonargparse import Namespace

from lit_gans.cli import main
from lit_gans.commands import training
from lit_gans.commands.training import CommandLine

ROOT = Path(__file__).parents[1]
EXPERIMENTS = [
    path.relative_to(ROOT / "configs").as_posix()
    for path in sorted((ROOT / "configs").rglob("*.yaml"))
    if "class_path" not in yaml.safe_load(path.read_text("utf-8")).get("data", {"class_path": None})
]  # those on pairs of pictures leave all of this to their data
DCGAN = ["--model", "DCGAN", "--model.generator", "DCGANGenerator", "--model.discriminator", "DCGANDiscriminator"]


@pytest.fixture
def resolved(monkeypatch, tmp_path):
    """From words to the config before and after linking; nothing is built."""
    monkeypatch.chdir(tmp_path)
    seen = []

    class StopError(Exception):
        pass

    def stop(self):
        options, given = self.config.fit, self.given.fit
        seen.append(options.clone())
        training.link(options, given)
        seen.append(options)
        raise StopError

    monkeypatch.setattr(CommandLine, "before_instantiate_classes", stop)

    def resolve(*words):
        seen.clear()
        with pytest.raises(StopError):
            main(["fit", *map(str, words)])
        return seen

    return resolve


def numbers(options):
    model: Namespace = options.model.init_args
    networks = model.generator.init_args, model.discriminator.init_args
    return (
        (options.data.image_size, *(n.image_size for n in networks)),
        (options.data.channels, *(n.channels for n in networks)),
        (model.latent_dim, networks[0].latent_dim),
        (model.num_classes, *(n.num_classes for n in networks)),
    )


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_shipped_configs_stay_as_they_are(name, resolved):
    before, after = resolved("--config", ROOT / "configs" / name)
    assert before == after


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--data.dataset", "mnist"], ((None, 28, 28), (None, 1, 1), (100, 100), (None, None, None))),
        (["--data.dataset=cifar10", "--data.image_size=16"], ((16, 16, 16), (None, 3, 3), (100, 100), (None,) * 3)),
        (["--model.generator.image_size=32"], ((32, 32, 32), (None, 1, 1), (100, 100), (None,) * 3)),
        (["--model.latent_dim=50", "--data.channels=3"], ((None, 8, 8), (3, 3, 3), (50, 50), (None,) * 3)),
        (["--model.generator.latent_dim=7"], ((None, 8, 8), (None, 1, 1), (7, 7), (None,) * 3)),
        (["--model.num_classes=10"], ((None, 8, 8), (None, 1, 1), (100, 100), (10, 10, 10))),
        (["--model=ACGAN", "--model.num_classes=10"], ((None, 8, 8), (None, 1, 1), (100, 100), (10, 10, None))),
        (["--model=PacGAN", "--model.pack=3"], ((None, 8, 8), (None, 1, 3), (128, 128), (None,) * 3)),
    ],
)
def test_what_is_given_once_is_everywhere(words, expected, resolved):
    model = [word for word in words if word.startswith("--model=")]
    rest = [word for word in words if word not in model]
    networks = ["--model", model[0].partition("=")[2], *DCGAN[2:]] if model else DCGAN
    assert numbers(resolved(*networks, *rest)[1]) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--data.image_size=32", "--model.generator.image_size=64"],
            "image_size is given several times: data 32, the generator 64; leave all but one out, or add "
            "--model.generator.image_size 32",
        ),
        (
            ["--model.latent_dim=50", "--model.generator.latent_dim=60"],
            "latent_dim is given several times: the model 50, the generator 60; leave one of them out, or add "
            "--model.generator.latent_dim 50",
        ),
    ],
)
def test_contradictions_are_told_with_the_options_to_add(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["fit", *DCGAN, *words])
    assert left.value.code == 2
    assert message in capsys.readouterr().err


def test_a_config_for_other_images_trains_on_these(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["--model.generator.width", "4", "--model.discriminator.width", "4", "--trainer.max_steps", "1"]
    data = ["--data.dataset", "fake", "--data.image_size", "32", "--data.fake_length", "32", "--data.batch_size", "16"]
    quiet = ["--trainer.logger", "false", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    main(
        ["fit", "--config", str(ROOT / "configs/dcgan/celeba.yaml"), *small, *data, "--model.latent_dim", "50", *quiet]
    )
    (config,) = tmp_path.glob("runs/*/version_0/config.yaml")
    model = yaml.safe_load(config.read_text("utf-8"))["model"]["init_args"]
    assert model["generator"]["init_args"]["image_size"] == model["discriminator"]["init_args"]["image_size"] == 32
    assert model["generator"]["init_args"]["latent_dim"] == 50

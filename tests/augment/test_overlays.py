"""Augmentations on the command line, in a model with penalties, and in its checkpoint."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from toys import trainer

from lit_gans.augment import ADA, DiffAugment
from lit_gans.cli import main
from lit_gans.data import ImageDataModule
from lit_gans.models import GAN
from lit_gans.networks import MLPDiscriminator, MLPGenerator
from lit_gans.regularizers import R1

OVERLAYS = Path(__file__).parents[2] / "configs" / "augment"
CLASSES = {"ada": ADA, "diffaugment": DiffAugment}
SMALL = {"image_size": 8, "channels": 3, "widths": [16]}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def words(model, overlay, **trainer):
    """A run of two steps on noise, written as a config with an overlay."""
    config = {
        "seed_everything": 0,
        "trainer": {
            **{"max_steps": 2, "limit_val_batches": 0, "enable_progress_bar": False, "log_every_n_steps": 1},
            **{"callbacks": [{"class_path": "SampleGrid", "init_args": {"n": 2}}], **trainer},
        },
        "model": {
            "class_path": model,
            "init_args": {
                "generator": {"class_path": "MLPGenerator", "init_args": SMALL | {"latent_dim": 4}},
                "discriminator": {"class_path": "MLPDiscriminator", "init_args": SMALL},
                "latent_dim": 4,
                "n_critic": 1,
                "regularizers": [{"class_path": "R1"}],
            },
        },
        "data": {"dataset": "fake", "image_size": 8, "channels": 3, "batch_size": 4, "fake_length": 16},
        "monitor": None,
    }
    Path("config.yaml").write_text(yaml.safe_dump(config))
    return ["fit", "--config", "config.yaml", "--config", str(OVERLAYS / f"{overlay}.yaml")]


@pytest.mark.parametrize("overlay", CLASSES)
@pytest.mark.parametrize("model", ["GAN", "WGANGP", "SNGAN"])
def test_overlays_train_and_the_checkpoint_is_all_that_sampling_needs(model, overlay):
    more = ["--model.init_args.augment.init_args.p=0.8"] if overlay == "ada" else []
    main([*words(model, overlay), *more])
    (checkpoint,) = Path("runs").rglob("last.ckpt")
    saved = torch.load(checkpoint, weights_only=True)
    assert saved["global_step"] == 2
    assert all(torch.isfinite(value).all() for value in saved["state_dict"].values())
    loaded = GAN.load_from_checkpoint(checkpoint)
    assert type(loaded).__name__ == model
    assert type(loaded.augment) is CLASSES[overlay]
    assert loaded.sample(2, seed=0).shape == (2, 3, 8, 8)
    if overlay == "ada":
        assert torch.equal(loaded.augment.p, saved["state_dict"]["augment.p"])
        assert loaded.augment.p.item() == pytest.approx(0.8, abs=1e-3)
    main(["sample", str(checkpoint), "-n", "2", "--seed", "0", "-o", "x.npz"])
    assert np.load("x.npz")["images"].shape == (2, 8, 8, 3)


def test_wrong_names_are_told_with_the_nearest_right_ones(capsys):
    for option, message in [
        ("--model.augment=DifAugment", "unknown class 'DifAugment': did you mean DiffAugment?"),
        ("--model.augment.policy=[colour]", "'colour': did you mean color"),
    ]:
        with pytest.raises(SystemExit):
            main([*words("GAN", "diffaugment"), option])
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("augment", [ADA(filter=True, p=0.3), DiffAugment(["cutout"]), lambda x: x.flip(3)])
def test_python_models_come_back_with_their_augmentation(augment, tmp_path):
    networks = MLPGenerator(latent_dim=4, **SMALL), MLPDiscriminator(**SMALL)
    model = GAN(*networks, latent_dim=4, augment=augment, regularizers=[R1()])
    run = trainer(tmp_path, max_steps=2, limit_val_batches=0)
    run.fit(model, ImageDataModule("fake", image_size=8, channels=3, batch_size=4, fake_length=16))
    run.save_checkpoint("model.ckpt")
    loaded = GAN.load_from_checkpoint("model.ckpt")
    if isinstance(augment, torch.nn.Module):
        assert type(loaded.augment) is type(augment)
        assert loaded.augment.init_args == augment.init_args
    assert torch.equal(loaded.sample(2, seed=1), model.sample(2, seed=1))


def test_the_penalty_sees_the_augmented_critic_in_finite_differences():
    torch.manual_seed(0)
    model = GAN(
        MLPGenerator(latent_dim=4, **SMALL), MLPDiscriminator(**SMALL), augment=ADA(p=0.9), latent_dim=4
    ).double()
    real = torch.rand(3, 3, 8, 8, dtype=torch.float64) * 2 - 1
    weight = model.discriminator.get_parameter(next(iter(dict(model.discriminator.named_parameters()))))

    def penalty():
        torch.manual_seed(1)
        return R1()(model, real, real)

    (gradient,) = torch.autograd.grad(penalty(), weight)
    direction, eps = torch.randn_like(weight), 1e-6
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight.add_(direction, alpha=sign * eps)
        values.append(penalty().item())
        with torch.no_grad():
            weight.sub_(direction, alpha=sign * eps)
    assert (gradient * direction).sum().item() == pytest.approx((values[0] - values[1]) / (2 * eps), rel=1e-4)


@pytest.mark.exhaustive
@pytest.mark.parametrize("augment", [DiffAugment, ADA])
def test_compiled_models_learn_the_same(augment, tmp_path):
    ends = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = GAN(
            MLPGenerator(latent_dim=4, **SMALL),
            MLPDiscriminator(**SMALL),
            latent_dim=4,
            augment=augment(**({"p": 0.5} if augment is ADA else {})),
            regularizers=[R1()],
            compile=compiled,
        )
        data = ImageDataModule("fake", image_size=8, channels=3, batch_size=4, fake_length=16)
        trainer(tmp_path, max_steps=3, limit_val_batches=0).fit(model, data)
        ends.append(torch.cat([p.flatten() for p in model.parameters()]))
    torch.testing.assert_close(*ends, atol=1e-5, rtol=1e-4)

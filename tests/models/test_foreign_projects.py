"""In other people's projects: networks, loaders, batches and loops as they are found there."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from toys import (
    CLASSES,
    EXTRAS,
    HEADS,
    LATENT,
    MODELS,
    SEEING,
    SIDE,
    Batches,
    Discriminator,
    Generator,
    build,
    images,
    loader,
    networks,
    same,
    trainer,
    weights,
)

from lit_gans.metrics import FrechetDistance, ModuleExtractor
from lit_gans.models import GAN, R3GAN, WGANGP

DOCS = Path(__file__).parents[2] / "docs"
SPECTRAL = ("SNGAN", "ProjectionGAN", "SAGAN", "BigGAN", "SSGAN", "ReACGAN")


def normalised(network):
    """With torch's older spectral norm, as in most published code."""
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.Embedding)):
            nn.utils.spectral_norm(layer)
    return network


@pytest.mark.parametrize("name", SPECTRAL)
def test_layers_that_are_spectrally_normalised_already_stay_as_they_are(name, tmp_path, monkeypatch):
    torch.manual_seed(0)
    classes = CLASSES if name in SEEING else None
    discriminator = normalised(Discriminator(classes, head=HEADS.get(name)))
    names = [key for key, _ in discriminator.named_parameters()]
    conditional = CLASSES if "num_classes" in EXTRAS.get(name, {}) else None
    told = []
    monkeypatch.setattr("lit_gans.modules.rank_zero_info", told.append)
    model = MODELS[name](Generator(conditional), discriminator, latent_dim=LATENT, **EXTRAS.get(name, {}))
    assert sum("torch.nn.utils.spectral_norm already and keep it" in line for line in told) == 1
    assert [key for key, _ in discriminator.named_parameters()] == names
    before = weights(discriminator)
    trainer(tmp_path, max_steps=3).fit(model, loader())
    moved = weights(discriminator)
    assert all(torch.isfinite(value).all() for value in moved.values())
    assert not torch.equal(before["body.0.weight_orig"], moved["body.0.weight_orig"])


class Linear(nn.Module):
    """A generator that ends linearly, as StyleGAN2's and R3GAN's do."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.body, self.scale = nn.Linear(LATENT, SIDE * SIDE), scale

    def forward(self, z, y=None):
        return self.scale * self.body(z).view(-1, 1, SIDE, SIDE)


@pytest.mark.parametrize("cls", [GAN, R3GAN])
def test_generators_may_end_linearly(cls, tmp_path):
    torch.manual_seed(0)
    model = cls(Linear(4.0), Discriminator(), latent_dim=LATENT, g_lr=0.1)
    with pytest.warns(UserWarning, match=r"span \[-.*, the data lie in \[-1, 1\]: nothing bounds them") as told:
        trainer(tmp_path, max_steps=6).fit(model, loader())
    assert sum("nothing bounds them" in str(warning.message) for warning in told) == 1
    assert model(torch.randn(64, LATENT)).abs().max() > 1
    assert model.sample(64, seed=0).abs().max() == 1
    with torch.no_grad():
        model.generator.body.bias.fill_(500.0)  # once trained, it is not judged
    trainer(tmp_path, max_steps=1).fit(model, loader())


def test_generators_that_cannot_become_right_are_refused(tmp_path):
    class Sigmoid(Linear):
        def forward(self, z, y=None):
            return super().forward(z).sigmoid()

    for generator, message in [
        (
            Sigmoid(),
            r"span \[0\.\d+, 0\.\d+\], the data \[-0\.\d+, .*sigmoid at its end it cannot reach below 0",
        ),
        (Linear(1000.0), r"the data lie in \[-1, 1\]: end it with a tanh, or scale its output"),
    ]:
        with pytest.raises(ValueError, match=message):
            trainer(tmp_path, max_steps=1).fit(GAN(generator, Discriminator(), latent_dim=LATENT), loader())


def test_several_validation_loaders(tmp_path):
    run = trainer(tmp_path, max_steps=6, limit_test_batches=2)
    run.fit(build("WGANGP"), loader(), [loader(16), loader(24)])
    keys = {f"val/{player}_loss/dataloader_idx_{k}" for player in "dg" for k in (0, 1)}
    assert keys <= run.callback_metrics.keys()
    run.test(build("GAN"), [loader(16), loader(24)])
    assert "test/d_loss/dataloader_idx_1" in run.callback_metrics


def test_predict_makes_images_from_latents_and_says_so_to_images(tmp_path):
    model = build("CGAN", ema_decay=0.5)
    run = trainer(tmp_path, max_steps=2)
    run.fit(model, loader())
    z, y = model.draw_inputs(8, seed=3)
    (made,) = run.predict(model, Batches((z, y)))
    assert torch.equal(made, model.sample(8, seed=3))
    for batch, told in [((images(8), y), "(8, 1, 6, 6)"), (images(8), "(8, 1, 6, 6)"), ({"image": z}, "dict")]:
        message = f"predict makes images from latents (N, {LATENT}), alone or with labels, got {told}"
        with pytest.raises(ValueError, match=re.escape(message)):
            run.predict(model, Batches(batch))


@pytest.mark.parametrize(("convert", "flag"), [("double", "64-true"), ("half", "16-true"), ("bfloat16", "bf16-true")])
def test_a_converted_model_is_told_the_precision_that_goes_with_it(convert, flag, tmp_path):
    model = getattr(build("GAN"), convert)()
    with pytest.raises(ValueError, match=rf"precision='32-true'\) trains in another type: use precision='{flag}'"):
        trainer(tmp_path, max_steps=1).fit(model, loader())
    if convert == "double":
        trainer(tmp_path, max_steps=1, precision=flag).fit(model, loader())


@dataclass
class Pair:
    image: torch.Tensor
    label: torch.Tensor


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (lambda: CombinedLoader([loader(), loader()]), "the batch is list that begins with list"),
        (lambda: Batches(Pair(images(8), torch.zeros(8))), "the batch is Pair"),
    ],
)
def test_batches_of_another_form_are_named_with_the_remedy(data, told, tmp_path):
    with pytest.raises(ValueError, match=rf"{told}.*override unpack_batch\(batch\) to return images and labels"):
        trainer(tmp_path, max_steps=1).fit(build("GAN"), data())

    class First(GAN):
        def unpack_batch(self, batch):
            return (batch.image, None) if isinstance(batch, Pair) else (batch[0][0], None)

    trainer(tmp_path, max_steps=1).fit(First(*networks("GAN"), latent_dim=LATENT), data())


class Sums(nn.Module):
    """What it is handed shows in its answer."""

    def forward(self, x):
        return torch.stack([x.float().mean((1, 2, 3)), torch.full((len(x),), float(x.is_floating_point()))], 1)


def test_a_module_of_ones_own_can_be_handed_pixels_as_torchmetrics_does():
    x = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    with pytest.warns(UserWarning, match=r"normalised to \[-1, 1\]; torchmetrics would hand it uint8"):
        usual = ModuleExtractor(Sums())
    raw = ModuleExtractor(Sums(), raw=True)
    assert usual(x).features[:, 1].tolist() == [1.0] * 5
    assert raw(x).features[:, 1].tolist() == [0.0] * 5
    torch.testing.assert_close(raw(x).features[:, 0], x.float().mean((1, 2, 3)))
    assert raw.describe()["normalisation"] == "none: uint8 in 0..255"
    assert usual.describe()["normalisation"] == "(x / 255 - 0.5) / 0.5"
    with pytest.raises(ValueError, match="raw pixels are handed over as they are"):
        ModuleExtractor(Sums(), raw=True, mean=0.5)


@pytest.mark.filterwarnings("error")
def test_nothing_is_warned_of_where_it_was_said_what_is_meant():
    for options in ({"raw": True}, {"raw": False}, {"mean": 0.0, "std": 1.0}):
        ModuleExtractor(Sums(), **options)


def test_metrics_of_sets_say_what_to_call():
    metric = FrechetDistance(ModuleExtractor(Sums(), raw=True))
    with pytest.raises(TypeError, match=r"FrechetDistance compares sets of images: call update\(images, real=\.\.\.\)"):
        metric(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), real=False)
    assert int(metric.fake_n) == 0


def test_the_loop_of_the_page_on_fabric_is_that_of_the_trainer(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "fabric.md").read_text("utf-8"), re.DOTALL)
    names = {}
    torch.manual_seed(0)
    exec(compile(code, "fabric.md", "exec"), names)  # the page, as a reader would run it
    torch.manual_seed(0)
    shape = {"image_size": 8, "channels": 1, "widths": [64]}
    ours = WGANGP(
        names["MLPGenerator"](latent_dim=16, **shape), names["MLPDiscriminator"](**shape), latent_dim=16, seed=0
    )
    assert type(ours) is type(names["model"])
    steps = names["step"] + 1
    assert steps > ours.n_critic
    data = names["ImageDataModule"]("digits", batch_size=64)  # anew, for the order of a first epoch
    data.setup("fit")
    batches = list(data.train_dataloader())
    trained = trainer(tmp_path, max_steps=steps)
    trained.fit(ours, Batches(*batches))
    for (key, mine), theirs in zip(weights(ours).items(), weights(names["model"]).values(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6), key
    assert not same(weights(ours), weights(build("GAN")))


class Reversed(GAN):
    """Optimizers in the order that many projects have."""

    def configure_optimizers(self):
        (d_optimizer, g_optimizer), schedulers = super().configure_optimizers()
        return [g_optimizer, d_optimizer], schedulers


def test_optimizers_are_matched_by_their_parameters(tmp_path):
    ends = []
    for cls in (GAN, Reversed):
        model = cls(*networks("GAN"), latent_dim=LATENT, d_lr=1e-3, g_lr=2e-3, d_clip=0.1)
        saver = ModelCheckpoint(tmp_path / cls.__name__, every_n_train_steps=6, save_top_k=-1, filename="{step}")
        trainer(tmp_path, max_steps=9, callbacks=[saver], enable_checkpointing=True).fit(model, loader())
        ends.append(weights(model))
    assert same(*ends)
    resumed = Reversed(*networks("GAN"), latent_dim=LATENT, d_lr=1e-3, g_lr=2e-3, d_clip=0.1)
    path = tmp_path / "Reversed" / "step=6.ckpt"
    trainer(tmp_path, max_steps=9).fit(resumed, loader(), ckpt_path=path, weights_only=True)
    assert same(ends[1], weights(resumed))


def test_lightnings_monitor_of_learning_rates_names_the_players(tmp_path):
    model = GAN(*networks("GAN"), latent_dim=LATENT, d_lr=1e-3, g_lr=2e-3)
    run = trainer(tmp_path, max_steps=2, callbacks=[LearningRateMonitor()], logger=CSVLogger(tmp_path))
    run.fit(model, loader())
    assert run.callback_metrics["lr-Adam/discriminator"] == 1e-3
    assert run.callback_metrics["lr-Adam-1/generator"] == 2e-3


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda m: torch.optim.Adam(m.parameters()), "it gave 1, .*: discriminator and generator"),
        (lambda m: [torch.optim.Adam(m.discriminator.parameters())] * 2, "it gave 2, .*: discriminator, discriminator"),
        (
            lambda m: [torch.optim.Adam(m.generator.parameters()), torch.optim.Adam([nn.Parameter(torch.ones(1))])],
            "it gave 2, .*: generator, neither player",
        ),
    ],
)
def test_optimizers_that_belong_to_no_player_are_refused(make, told, tmp_path):
    class Own(GAN):
        def configure_optimizers(self):
            return make(self)

    with pytest.raises(ValueError, match=f"configure_optimizers must give one optimizer for .*{told}"):
        trainer(tmp_path, max_steps=1).fit(Own(*networks("GAN"), latent_dim=LATENT), loader())

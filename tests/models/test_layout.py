"""Which memory format "auto" takes, and that it goes with the checkpoint, so that numbers stay those of one format."""

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from toys import LATENT, build, trainer, weights

from lit_gans.game import layout
from lit_gans.models import GAN
from lit_gans.networks import (
    DCGANDiscriminator,
    DCGANGenerator,
    MLPDiscriminator,
    MLPGenerator,
    R3GANDiscriminator,
    R3GANGenerator,
    ResNetDiscriminator,
    ResNetGenerator,
    StyleGAN2Discriminator,
    StyleGAN2Generator,
)

SMALL = {"image_size": 8, "channel_base": 64, "channel_max": 16, "mapping_layers": 1}
NETWORKS = {
    "DCGAN": lambda: (DCGANGenerator(image_size=8, width=4), DCGANDiscriminator(image_size=8, width=4)),
    "ResNet": lambda: (ResNetGenerator(latent_dim=100, width=4), ResNetDiscriminator(width=4)),
    "group norm": lambda: (
        DCGANGenerator(image_size=8, width=8),
        DCGANDiscriminator(image_size=8, width=8, norm="group"),
    ),
    "StyleGAN2": lambda: (StyleGAN2Generator(latent_dim=100, w_dim=16, **SMALL), StyleGAN2Discriminator(**SMALL)),
    "instance norm": lambda: (
        DCGANGenerator(image_size=16, width=4),
        DCGANDiscriminator(image_size=16, width=4, norm="instance"),
    ),
    "grouped": lambda: (
        R3GANGenerator(image_size=8, latent_dim=100, width=32, group_size=8),
        R3GANDiscriminator(image_size=8, width=32, group_size=8),
    ),
    "MLP": lambda: (MLPGenerator(image_size=8, latent_dim=100), MLPDiscriminator(image_size=8)),
}
GAIN = ("DCGAN", "ResNet", "group norm", "StyleGAN2")


class Viewing(nn.Module):
    """Reads its maps as if they lay in the usual format."""

    def __init__(self):
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 64, 1)

    def forward(self, x):
        return self.out(self.conv(x).view(len(x), -1))


def model_of(generator, discriminator, **kwargs):
    return GAN(generator, discriminator, latent_dim=100, ema_decay=0.9, **kwargs)


def in_channels_last(model):
    """Whether all weights of convolutions lie so; of those that tell."""
    wide = [p for p in model.parameters() if p.ndim == 4 and p.shape[1] > 1 and p[0, 0].numel() > 1]
    laid = {p.is_contiguous(memory_format=torch.channels_last) for p in wide}
    assert len(laid) == 1
    return laid.pop()


def pictures(n=64):
    x = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return DataLoader(TensorDataset(x), 32)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_taken_for_layers_that_gain(name):
    model = model_of(*NETWORKS[name]())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert layout.channels_last_pays(model, "cpu", "32-true") is (name in GAIN)
    assert name == "MLP" or in_channels_last(model) is (name in GAIN)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("device", "precision", "taken"),
    [
        ("cpu", "bf16-mixed", True),
        ("cuda", "32-true", False),
        ("cuda", "bf16-mixed", True),
        ("cuda", "16-mixed", True),
        ("mps", "16-mixed", False),
    ],
)
def test_devices_and_precisions_that_gain(device, precision, taken):
    assert layout.channels_last_pays(model_of(*NETWORKS["DCGAN"]()), device, precision) is taken


@pytest.mark.parametrize(("batch_size", "taken"), [(1, False), (125, False), (126, True), (None, True)])
def test_small_batches_of_small_maps_do_not_gain(batch_size, taken):
    generator = nn.Sequential(nn.Unflatten(1, (100, 1, 1)), nn.ConvTranspose2d(100, 3, 8))  # 19,200 weights, 1 place
    discriminator = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.Flatten(), nn.Linear(768, 1))  # 324, 64 places
    model = model_of(generator, discriminator)
    assert 125 * (19200 + 64 * 324) / 19524 < layout.FEW_PLACES < 126 * (19200 + 64 * 324) / 19524
    assert layout.channels_last_pays(model, "cpu", "32-true", batch_size) is taken
    assert in_channels_last(model) is taken
    assert not any(layer._forward_hooks for layer in model.modules())


def test_a_network_that_cannot_be_laid_out_trains_as_it_is(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(layout, "rank_zero_info", told.append)
    model = model_of(NETWORKS["DCGAN"]()[0], Viewing())
    trainer(tmp_path, max_steps=2).fit(model, pictures())
    assert not model.laid_out
    assert not in_channels_last(model)
    assert len(told) == 1
    assert told[0].startswith("channels_last: left out, since the networks do not run in this memory format: view size")


def test_to_choose_draws_no_random_numbers():
    model = model_of(*NETWORKS["StyleGAN2"]())  # whose noise is torch's global generator's
    torch.manual_seed(3)
    state = torch.get_rng_state()
    assert layout.channels_last_pays(model, "cpu", "32-true")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("saved", ["auto", False])
def test_a_run_goes_on_bit_by_bit_in_the_format_of_its_checkpoint(saved, tmp_path):
    def train(steps, channels_last, ckpt=None):
        torch.manual_seed(0)
        model = model_of(*NETWORKS["DCGAN"](), channels_last=channels_last)
        saver = ModelCheckpoint(tmp_path, every_n_train_steps=2, save_top_k=-1, filename=f"{saved}-{{step}}")
        run = trainer(tmp_path, max_steps=steps, callbacks=[saver], enable_checkpointing=True)
        run.fit(model, pictures(), ckpt_path=ckpt, weights_only=True)
        assert in_channels_last(model) is model.laid_out is (saved == "auto")
        return weights(model)

    unbroken = train(4, saved)
    resumed = train(4, "auto", tmp_path / f"{saved}-step=2.ckpt")
    assert all(torch.equal(value, resumed[key]) for key, value in unbroken.items())


def test_samples_of_a_checkpoint_are_those_of_the_run_bit_by_bit(tmp_path):
    model = model_of(*NETWORKS["DCGAN"]())
    run = trainer(tmp_path, max_steps=2)
    run.fit(model, pictures())
    run.save_checkpoint(tmp_path / "end.ckpt")
    loaded = GAN.load_from_checkpoint(tmp_path / "end.ckpt")
    assert in_channels_last(loaded)
    assert torch.equal(loaded.sample(5, seed=0), model.sample(5, seed=0))


def test_what_has_no_convolutions_stays_as_it_was(tmp_path):
    model = build("GAN")
    trainer(tmp_path, max_steps=1).fit(model, DataLoader(TensorDataset(torch.zeros(8, 1, 6, 6)), 8))
    assert not model.laid_out
    assert model.latent_dim == LATENT

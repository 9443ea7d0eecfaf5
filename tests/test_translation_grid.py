"""Pictures that are drawn while training are those that the checkpoint makes, bit for bit."""

import numpy as np
import pytest
import torch
from PIL import Image
from toys import trainer

from lit_gans.callbacks import SampleGrid
from lit_gans.callbacks.pairs import comparison, example_pairs
from lit_gans.callbacks.samples import mosaic
from lit_gans.data import PairedImageDataModule, UnpairedImageDataModule
from lit_gans.functional import to_uint8
from lit_gans.models import CycleGAN, Pix2Pix
from lit_gans.networks import PatchDiscriminator, ResNetTranslator, UNetGenerator

SIZE = {"load_size": 32, "batch_size": 4, "limit": 8}


def pix2pix():
    torch.manual_seed(0)
    generator = UNetGenerator(in_channels=1, out_channels=1, depth=5, base_channels=4)  # deep enough for dropout
    return Pix2Pix(generator, PatchDiscriminator(in_channels=2, layers=1, base_channels=4), ema_decay=0.5)


def cyclegan():
    torch.manual_seed(0)
    generator = ResNetTranslator(in_channels=1, out_channels=1, blocks=1, base_channels=4)
    return CycleGAN(generator, PatchDiscriminator(in_channels=1, layers=1, base_channels=4, norm="instance"))


@pytest.mark.parametrize(
    ("build", "data", "across"),
    [
        (pix2pix, PairedImageDataModule("digits", task="noise", **SIZE), 3),
        (cyclegan, UnpairedImageDataModule("digits", task_b="invert", **SIZE), 3),
    ],
)
def test_the_grid_is_what_translate_makes_of_the_checkpoint(build, data, across, tmp_path):
    grid = SampleGrid(n=4, every_n_steps=100, nrow=2, dirpath=tmp_path)
    run = trainer(tmp_path, max_steps=3, callbacks=[grid])
    run.fit(build(), data)
    run.save_checkpoint(tmp_path / "x.ckpt")
    model = type(build()).load_from_checkpoint(tmp_path / "x.ckpt")
    pairs = example_pairs(model, run, 4)
    shown = comparison(model, pairs)
    assert len(shown) == 4 * across * len(model.directions)
    drawn = np.asarray(Image.open(tmp_path / "step-00000003.png"))
    expected = mosaic(torch.stack(shown), across * 2).permute(1, 2, 0).numpy()
    assert np.array_equal(drawn, expected)
    source, target = pairs[0].y, pairs[0].x
    made = model.translate(source)
    assert torch.equal(shown[1], to_uint8(made)[0].expand(3, -1, -1))
    third = target if model.paired else model.translate(made, direction="b2a")
    assert torch.equal(shown[2], to_uint8(third)[0].expand(3, -1, -1))

"""Checkpoints of the formats so far, as the version wrote them: each later version must read them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from toys import trainer

from lit_gans import CGAN, GAN, ImageDataModule
from lit_gans.game.checkpoint import FORMAT

DATA = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize("version", range(1, FORMAT + 1))
def test_an_older_checkpoint_draws_the_same_images_and_trains_on(version, tmp_path):
    path = DATA / f"format_{version}.ckpt"
    model = GAN.load_from_checkpoint(path)
    assert type(model) is CGAN
    expected = torch.from_numpy(np.load(path.with_suffix(".npz"))["images"])
    torch.testing.assert_close(model.sample(8, seed=0), expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0.1
    run = trainer(tmp_path, max_steps=52)
    run.fit(model, ImageDataModule("digits"), ckpt_path=path)
    assert run.global_step == 52
    assert model.images_seen == 52 * 64


def test_a_later_format_is_refused_with_both_numbers(tmp_path):
    checkpoint = torch.load(DATA / f"format_{FORMAT}.ckpt", weights_only=True)
    checkpoint["lit_gans"]["format"] = FORMAT + 1
    torch.save(checkpoint, tmp_path / "later.ckpt")
    with pytest.raises(
        ValueError, match=rf"format {FORMAT + 1}, of a later lit_gans; this version reads up to {FORMAT}"
    ):
        GAN.load_from_checkpoint(tmp_path / "later.ckpt")

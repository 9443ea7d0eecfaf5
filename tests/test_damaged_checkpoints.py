"""Checkpoints whose parts do not fit together: one sentence from each command, and no memory asked for."""

import math
import resource
from pathlib import Path

import pytest
import torch
from refusals import refused

from lit_gans import GAN

GOOD = Path(__file__).parent / "data" / "format_1.ckpt"
CONFIG = """
model:
  class_path: CGAN
  init_args:
    latent_dim: 8
    num_classes: 10
    ema_decay: 0.9
    generator:
      class_path: MLPGenerator
      init_args: {latent_dim: 8, norm: batch, image_size: 8, widths: [16], num_classes: 10, embed_dim: 4}
    discriminator:
      class_path: MLPDiscriminator
      init_args: {image_size: 8, widths: [16], num_classes: 10, embed_dim: 4}
trainer: {max_steps: 51, enable_progress_bar: false}
"""


def put(*keys, value):
    """Put a value somewhere into a checkpoint, or take it out."""

    def change(checkpoint):
        *path, last = keys
        for key in path:
            checkpoint = checkpoint[key]
        if value is None:
            del checkpoint[last]
        else:
            checkpoint[last] = value

    return change


def without(*players):
    def change(checkpoint):
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: x for name, x in state.items() if name.partition(".")[0] not in players}

    return change


def not_finite(checkpoint):
    for tensor in checkpoint["state_dict"].values():
        if tensor.is_floating_point():
            tensor.fill_(math.nan)


def expanded(checkpoint):
    """Weights of a billion inputs that take no room."""
    checkpoint["state_dict"]["generator.layers.0.weight"] = torch.zeros(1, 1).expand(16, 10**9 + 4)
    put("hyper_parameters", "generator", "init_args", "latent_dim", value=10**9)(checkpoint)
    put("hyper_parameters", "latent_dim", value=10**9)(checkpoint)


network = "hyper_parameters", "generator", "init_args"
CASES = {  # → what is changed, what is said, by which commands
    "lit_gans is a list": (put("lit_gans", value=[1]), "lit_gans is list, not dict", "sample validate fit"),
    "no class": (
        put("lit_gans", "class_path", value=None),
        "class_path under lit_gans is missing",
        "sample validate fit",
    ),
    "no count": (put("lit_gans", "images_seen", value=None), "images_seen under lit_gans is missing", "sample fit"),
    "names": (put("lit_gans", "left_out", value=[{}]), "'{}' under lit_gans is no name", "sample fit"),
    "arguments": (put("hyper_parameters", value=[1]), "hyper_parameters is list", "sample validate fit"),
    "weights are a list": (put("state_dict", value=[1]), "state_dict is list", "sample validate fit"),
    "a weight is a number": (put("state_dict", "x", value=3), "'x' among its weights is no tensor", "sample fit"),
    "latents": (put("hyper_parameters", "latent_dim", value=10**9), "latent_dim is 1000000000", "sample validate"),
    "expanded": (expanded, "latent_dim is 1000000000", "sample validate"),
    "sizes": (put(*network, "image_size", value=10**6), "(1000000000000, 16) in the model", "sample validate"),
    "depth": (put(*network, "widths", value=[16] * 10**5), "more than 3500 layers", "sample validate"),
    "classes": (
        put("hyper_parameters", "num_classes", value=10**9),
        "fewer than the num_classes=1000000000 classes",
        "sample",
    ),
    "a word for a number": (put("hyper_parameters", "latent_dim", value="eight"), "got eight", "sample validate"),
    "no generator": (without("generator"), "generator.layers.0.weight", "sample validate fit"),
    "no generator, no average": (without("generator", "g_ema"), "generator.layers.0.weight", "sample validate fit"),
    "NaN": (not_finite, "its generator makes NaN or infinite values", "sample"),
    "data": (put("datamodule_hyper_parameters", "batch_size", value="x"), "batch_size='x', no number", "evaluate"),
    "no loops": (put("loops", value={}), "lacks the state of the fit_loop", "validate fit"),
    "callbacks": (put("callbacks", value=[1]), "callbacks is list, not dict", "validate fit"),
    "no version": (
        put("pytorch-lightning_version", value=None),
        "pytorch-lightning_version is missing",
        "validate fit",
    ),
    "no optimizers": (put("optimizer_states", value=[]), "the states of 0 of its 2 optimizers", "fit"),
    "step": (put("global_step", value="x"), "global_step is str, not int", "fit"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_sentence_and_no_memory(case, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    change, told, commands = CASES[case]
    checkpoint = torch.load(GOOD, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, "x.ckpt")
    Path("c.yaml").write_text(CONFIG)
    words = {
        "sample": ("sample", "x.ckpt", "-o", "x.png"),
        "evaluate": ("evaluate", "x.ckpt"),
        "validate": ("validate", "--ckpt_path", "x.ckpt"),
        "fit": ("fit", "--config", "c.yaml", "--ckpt_path", "x.ckpt"),
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for command in commands.split():
        assert told in refused(capsys, *words[command])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024
    assert not Path("x.png").exists()


def test_in_python_without_networks_of_ones_own(tmp_path):
    checkpoint = torch.load(GOOD, weights_only=True)
    del checkpoint["hyper_parameters"]["generator"]
    torch.save(checkpoint, tmp_path / "x.ckpt")
    with pytest.raises(
        ValueError, match=r"how to build its generator.*CGAN\.load_from_checkpoint\(path, generator=\.\.\."
    ):
        GAN.load_from_checkpoint(tmp_path / "x.ckpt")


@pytest.mark.parametrize("option", ["checkpoint_every", "sample_every"])
def test_steps_between_two_are_at_least_one(option, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(CONFIG)
    assert f"--{option} must be at least 1, got 0" in refused(capsys, "fit", "--config", "c.yaml", f"--{option}=0")

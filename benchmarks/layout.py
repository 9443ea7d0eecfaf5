"""Time of layers in torch's channels_last memory format over that in its usual one, forward and backward.

    python -m benchmarks.layout [--rounds 9] [--device cpu] [--bf16] [--output benchmarks/results/layout.json]

Below 1 channels_last is faster. It is what ``channels_last="auto"`` goes by, ``lit_gans/game/layout.py``.
"""

import argparse
import copy
import json
import statistics
import time
from pathlib import Path

import torch
from torch import nn

from lit_gans.networks.layers import FIR


class Filtered(nn.Module):
    """StyleGAN2's resampling, one way."""

    def __init__(self, up):
        super().__init__()
        self.fir, self.up = FIR(), up

    def forward(self, x):
        return self.fir.up(x) if self.up else self.fir.down(x)


LAYERS = {  # name: (layer, channels, size)
    "convolution 3x3": (lambda: nn.Conv2d(64, 64, 3, padding=1), 64, 32),
    "convolution 1x1": (lambda: nn.Conv2d(64, 64, 1), 64, 32),
    "convolution 4x4, stride 2": (lambda: nn.Conv2d(64, 128, 4, 2, 1), 64, 32),
    "convolution 4x4, stride 2, of an image": (lambda: nn.Conv2d(3, 64, 4, 2, 1), 3, 64),
    "transposed convolution 4x4, stride 2": (lambda: nn.ConvTranspose2d(128, 64, 4, 2, 1), 128, 16),
    "transposed convolution to an image": (lambda: nn.ConvTranspose2d(64, 3, 4, 2, 1), 64, 32),
    "grouped convolution 3x3": (lambda: nn.Conv2d(64, 64, 3, padding=1, groups=4), 64, 32),
    "depthwise convolution 4x4": (lambda: nn.Conv2d(64, 64, 4, groups=64), 64, 4),
    "batch norm": (lambda: nn.BatchNorm2d(64), 64, 32),
    "group norm": (lambda: nn.GroupNorm(8, 64), 64, 32),
    "layer norm": (lambda: nn.GroupNorm(1, 64), 64, 32),
    "instance norm": (lambda: nn.InstanceNorm2d(64, affine=True), 64, 32),
    "leaky ReLU": (lambda: nn.LeakyReLU(0.2), 64, 32),
    "nearest upsampling": (lambda: nn.Upsample(scale_factor=2), 64, 16),
    "average pooling": (lambda: nn.AvgPool2d(2), 64, 32),
    "filter and upsampling": (lambda: Filtered(True), 64, 16),
    "filter and downsampling": (lambda: Filtered(False), 64, 32),
}


def step_of(layer, x, dtype):
    """A forward and a backward pass, as a function of nothing."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()

    def step():
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=dtype is not None):
            y = layer(x)
        torch.autograd.grad(y, (x, *layer.parameters()), torch.ones_like(y))
        if x.is_cuda:
            torch.cuda.synchronize()

    return step


def measure(name, rounds, device, dtype):
    build, channels, size = LAYERS[name]
    torch.manual_seed(0)
    usual = build().to(device)
    last = copy.deepcopy(usual).to(memory_format=torch.channels_last)
    x = torch.randn(32, channels, size, size, device=device)
    steps = step_of(usual, x, dtype), step_of(last, x.to(memory_format=torch.channels_last), dtype)
    times = [[], []]
    for round_ in range(rounds + 2):
        for step, kept in zip(steps, times, strict=True):
            start = time.perf_counter()
            for _ in range(3):
                step()
            if round_ > 1:
                kept.append(time.perf_counter() - start)
    return statistics.median(b / a for a, b in zip(*times, strict=True)), statistics.median(times[0]) / 3 * 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true", help="within autocast to bfloat16")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    dtype = torch.bfloat16 if arguments.bf16 else None
    ratios = {}
    for name in LAYERS:
        ratios[name], milliseconds = measure(name, arguments.rounds, arguments.device, dtype)
        print(f"{name:40} {ratios[name]:6.2f}   {milliseconds:8.2f} ms in the usual format")
    if arguments.output:
        arguments.output.write_text(json.dumps(ratios, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()

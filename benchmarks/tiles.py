"""Memory and time of pictures in tiles: 4096 x 4096 pixels against 1024 x 1024, which are made at once.

    python -m benchmarks.tiles [--sides 1024 4096] [-o benchmarks/results/tiles.json]

Networks are small ones, of which a pixel costs little. Peaks are those of a young process, beyond what it had before:
the source and the result as uint8, and what the network needs. The bar: that of the large picture is at most 1.2 times
that of the small one, and the pictures. With ``--fast`` it is missed: the small copy has another shape than the tiles,
and glibc's allocator keeps the holes (with MALLOC_MMAP_THRESHOLD_=1000000 it takes less than half). One thread. Linux.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from lightning import Trainer
from PIL import Image

from benchmarks.measuring import MIB, Peak, in_process
from lit_gans.cli import main as command
from lit_gans.game.tiling import auto_tile, cuts, overlap_of, seam
from lit_gans.models import CycleGAN, Translation
from lit_gans.networks import PatchDiscriminator, ResNetTranslator

KINDS = {"no norm": None, "instance norm": "instance", "instance norm, fast": "instance", "the command": None}


def model_of(kind: str) -> Translation:
    """A CycleGAN with a small generator."""
    torch.manual_seed(0)
    generator = ResNetTranslator(base_channels=8, blocks=1, norm=KINDS[kind])
    return CycleGAN(generator, PatchDiscriminator(in_channels=3, layers=1, base_channels=4))


def picture(side: int) -> torch.Tensor:
    """Smooth colours, uint8 (1, 3, side, side)."""
    wave = torch.arange(side) * (40 / side)
    rows, columns = (127.5 + 127.5 * wave.sin()).to(torch.uint8)[:, None], (127.5 + 90 * wave.cos()).to(torch.uint8)
    channels = [rows.expand(side, side), columns.expand(side, side), rows // 2 + columns // 2]
    return torch.stack(channels)[None]


def measured(kind: str, side: int) -> Iterator[dict[str, float | int | None]]:
    """Of one picture: seconds, bytes, tiles and what is seen at their borders."""
    torch.set_num_threads(1)
    model = model_of(kind)
    network = model.translator()
    model.translate(picture(64), tile=16)  # what is made at first use is not of the picture
    tile = auto_tile(network, side, side)
    with TemporaryDirectory() as folder:
        if kind == "the command":
            trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
            model.trainer = trainer
            trainer.strategy.connect(model)
            trainer.save_checkpoint(f"{folder}/x.ckpt")
            Image.fromarray(picture(side)[0].permute(1, 2, 0).contiguous().numpy()).save(f"{folder}/x.png")
            command(["translate", f"{folder}/x.ckpt", f"{folder}/x.png", "-o", f"{folder}/first.png", "--tile", "1024"])
            Path(f"{folder}/first.png").unlink()
            peak, begin = Peak(torch.device("cpu")), time.perf_counter()
            command(["translate", f"{folder}/x.ckpt", f"{folder}/x.png", "-o", f"{folder}/y.png"])
            seconds, taken = time.perf_counter() - begin, peak.read()
            made = torch.from_numpy(np.array(Image.open(f"{folder}/y.png"))).permute(2, 0, 1)
        else:
            peak, begin = Peak(torch.device("cpu")), time.perf_counter()
            made = model.translate(picture(side), tile=tile, fast=kind.endswith("fast"))[0]
            seconds, taken = time.perf_counter() - begin, peak.read()
    row: dict[str, float | int | None] = {"side": side, "seconds": seconds, "peak_mib": taken / MIB, "tiles": 1}
    row |= {"pictures_mib": 2 * 3 * side**2 / MIB}
    if tile is not None:
        spans = cuts(side, tile, overlap_of(network), network.stride)
        jump, beside = seam(made, (spans, spans), network.stride) or (0.0, 0.0)
        row |= {"tiles": len(spans) ** 2, "jump_at_borders": jump, "jump_beside": beside}
    yield row


def main() -> None:
    """Measure all kinds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs=2, default=(1024, 4096))
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    result = {}
    for kind in arguments.only:
        small, large = (next(in_process(measured, kind, side, seconds=600)) for side in arguments.sides)
        ratio = (large["peak_mib"] - large["pictures_mib"]) / (small["peak_mib"] - small["pictures_mib"])
        strict = large["peak_mib"] <= 1.2 * small["peak_mib"] + large["pictures_mib"]
        result[kind] = {"pictures": [small, large], "ratio_without_pictures": ratio, "pass": strict}
        peaks = f"{small['peak_mib']:.0f} → {large['peak_mib']:.0f} MiB, of which {large['pictures_mib']:.0f} pictures"
        print(
            f"{kind:20} {peaks}; {small['seconds']:.1f} → {large['seconds']:.1f} s, {large['tiles']} tiles", flush=True
        )
    if arguments.output:
        rounded = json.loads(json.dumps(result), parse_float=lambda number: round(float(number), 3))
        arguments.output.write_text(json.dumps(rounded, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()

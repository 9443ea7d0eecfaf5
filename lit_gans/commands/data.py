"""``check-data``: what is wrong with a data set, before training on it."""

from pathlib import Path
from typing import TYPE_CHECKING

from lit_gans.commands.files import refuse_existing, staged
from lit_gans.commands.parsing import Parser

if TYPE_CHECKING:
    from lit_gans.data import ImageDataModule
    from lit_gans.data.doctor import Report

__all__ = ("main",)


def main(command: str, words: list[str]) -> None:
    """Print the report, write the contact sheet; leave with code 1 if training would refuse the data."""
    from lit_gans.data import ImageDataModule, examine

    parser = Parser(prog=f"python -m lit_gans {command}", description=__doc__)
    parser.add_class_arguments(ImageDataModule, "data", sub_configs=True)
    parser.add_argument("-o", "--output", type=str, default=None, help="write a contact sheet to this PNG")
    parser.add_argument("--overwrite", action="store_true", help="replace what is at the output path")
    config = parser.parse_args(words)
    if config.output is not None:
        refuse_existing(Path(config.output), config.overwrite)
    data = parser.instantiate_classes(config).data
    report = examine(data)
    print(report)
    if config.output is not None:
        with staged(Path(config.output)) as target:
            draw(target, data, report)
        print(f"contact sheet → {config.output}")
    if not report.ok:
        raise SystemExit(1)


def draw(target: Path, data: "ImageDataModule", report: "Report") -> None:
    """One PNG: thumbnails of images, or all points."""
    if data.mixture is None:
        report.contact_sheet(target)
        return
    import torch
    from torchvision.transforms.functional import to_pil_image

    from lit_gans.callbacks.samples import scatter

    source = data.source("train")
    assert source is not None
    points = source.images(torch.arange(len(source)))
    to_pil_image(scatter(points, centers=data.mixture.centers)).save(target, format="PNG")

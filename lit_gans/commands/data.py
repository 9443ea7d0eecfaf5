"""``check-data``: what is wrong with a data set, before training on it."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_gans.commands.files import refuse_existing, staged
from lit_gans.commands.parsing import Parser
from lit_gans.commands.precheck import data_class

if TYPE_CHECKING:
    from lit_gans.data.doctor import Report

__all__ = ("main",)


def main(command: str, words: list[str]) -> None:
    """Print the report, write the contact sheet; leave with code 1 if training would refuse the data."""
    import lit_gans.data
    from lit_gans.data import examine

    kind, words = named(words)
    parser = Parser(prog=f"python -m lit_gans {command}", description=__doc__)
    parser.add_class_arguments(getattr(lit_gans.data, kind), "data", sub_configs=True)
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


def named(words: list[str]) -> tuple[str, list[str]]:
    """The data module that ``--data`` names, and the words without it."""
    kind, rest = data_class(words) or "ImageDataModule", []
    names = iter(words)
    for word in names:
        option, equals, value = word.partition("=")
        if option in ("--data", "--data.class_path"):
            value = value if equals else next(names, "")
            if value.rpartition(".")[2] != kind:
                rest += [option, value]
        else:
            rest.append(re.sub(r"^--data\.init_args\.", "--data.", word))
    return kind, rest


def draw(target: Path, data: Any, report: "Report") -> None:
    """One PNG: thumbnails of images or of pairs, or all points."""
    if getattr(data, "mixture", None) is None:
        report.contact_sheet(target)
        return
    import torch
    from torchvision.transforms.functional import to_pil_image

    from lit_gans.callbacks.samples import scatter

    source = data.source("train")
    assert source is not None
    points = source.images(torch.arange(len(source)))
    to_pil_image(scatter(points, centers=data.mixture.centers)).save(target, format="PNG")

"""``check-data``: what is wrong with a data set, before training on it."""

from pathlib import Path

from lit_gans.commands.files import refuse_existing, staged
from lit_gans.commands.parsing import Parser

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
    report = examine(parser.instantiate_classes(config).data)
    print(report)
    if config.output is not None:
        with staged(Path(config.output)) as target:
            report.contact_sheet(target)
        print(f"contact sheet → {config.output}")
    if not report.ok:
        raise SystemExit(1)

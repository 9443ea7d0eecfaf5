"""Which pictures are read, and where each result goes."""

import os
from collections import Counter
from pathlib import Path, PurePosixPath

from lit_gans.data.files import SUFFIXES, ImageFiles, some
from lit_gans.errors import UserError

__all__ = ("planned",)

_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


def planned(
    source: Path, output: str | None, suffix: str | None, overwrite: bool
) -> tuple[ImageFiles, dict[int, Path | None]]:
    """The files that are read, and by their number where each result goes, None if its name leads out of the folder.

    Args:
        source: A picture, a folder or a .zip.
        output: A file or a folder; None for beside the pictures.
        suffix: What is put at the end of names; None for ``_translated`` beside the pictures, else for nothing.
        overwrite: Whether results may take the place of files, but never that of their source.

    Raises:
        UserError: if there are no pictures, if a file is in the way, or if ``output`` is no place for them.
    """
    zipped = source.suffix.lower() == ".zip" and source.is_file()
    files = found(source, single=source.is_file() and not zipped)
    ending = "_translated" if suffix is None and output is None else suffix or ""
    if output is not None and source.is_file() and not zipped and not is_folder(output):
        targets: dict[int, Path | None] = {0: as_file(output)}
    elif output is not None:
        targets = dict(enumerate(named(files.names, as_folder(output, source), ending)))
        if source.is_dir():  # results of an earlier time may lie among the pictures
            targets = {n: to for n, to in targets.items() if not lies_in(source / files.names[n], Path(output), source)}
    elif zipped:
        targets = dict(enumerate(named(files.names, source.with_name(f"{source.stem}{ending}"), "")))
    else:
        targets = dict(enumerate(named(files.names, files.root, ending)))
        if ending and source.is_dir():
            targets = {n: to for n, to in targets.items() if not PurePosixPath(files.names[n]).stem.endswith(ending)}
    if not targets:
        raise UserError(f"there are no pictures in {source} but results of an earlier time")
    check_free(files, targets, overwrite)
    return files, targets


def found(source: Path, single: bool) -> ImageFiles:
    """The picture files."""
    if single and source.suffix.lower() not in SUFFIXES:
        raise UserError(f"{source} is no picture that can be read: {', '.join(sorted(SUFFIXES))}, or a .zip of them")
    try:
        return ImageFiles(source.parent, [source.name]) if single else ImageFiles(source, lenient=True)
    except FileNotFoundError:
        raise UserError(f"there are no pictures in {source}: {', '.join(sorted(SUFFIXES))}") from None


def as_file(output: str) -> Path:
    """The path of the one file that is written."""
    path = Path(output)
    if path.suffix.lower() not in _ENDINGS:
        raise UserError(f"-o {output}: end it with {', '.join(_ENDINGS)}, or with / for a folder")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent} to write {path.name} to: make it, or choose another path")
    return path


def as_folder(output: str, source: Path) -> Path:
    """The path of the folder that is written to."""
    path = Path(output)
    if path.exists() and not path.is_dir():
        raise UserError(f"-o {output} is a file: name a folder")
    if path.suffix.lower() in _ENDINGS and not is_folder(output):
        raise UserError(f"-o {output}: there may be several pictures in {source}: name a folder")
    return path


def is_folder(path: str) -> bool:
    """Whether a path is that of a folder, or ends as one."""
    return path.endswith(("/", "\\")) or Path(path).is_dir()


def named(names: list[str], into: Path, ending: str) -> list[Path | None]:
    """Where the result of each picture goes: its name with .png; all of its name where two would have the same."""
    stems = Counter(str(PurePosixPath(name).with_suffix("")).lower() for name in names)
    targets: list[Path | None] = []
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or (os.name == "nt" and ":" in name):
            targets.append(None)
            continue
        alone = stems[str(path.with_suffix("")).lower()] == 1
        targets.append(into / path.parent / f"{path.stem if alone else path.name}{ending}.png")
    return targets


def lies_in(path: Path, folder: Path, source: Path) -> bool:
    """Whether a picture lies in the folder of results, which is another than that of the pictures."""
    inner = Path(os.path.abspath(folder))
    return inner != Path(os.path.abspath(source)) and inner in Path(os.path.abspath(path)).parents


def check_free(files: ImageFiles, targets: dict[int, Path | None], overwrite: bool) -> None:
    """Refuse results that would take the place of a picture that is read, or of what is there."""
    sources = {os.path.abspath(files.root / files.names[index]) for index in targets}
    places = [target for target in targets.values() if target is not None]
    for target in places:
        if os.path.abspath(target) in sources and files.root.is_dir():
            raise UserError(f"{target} would take the place of a picture: add --suffix, or choose another -o")
    taken = [str(target) for target in places if target.exists()]
    if taken and not overwrite:
        raise UserError(
            f"{some(taken, 1)} {'exists' if len(taken) == 1 else 'exist'}: add --overwrite, or choose another path"
        )

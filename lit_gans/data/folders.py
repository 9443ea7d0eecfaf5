"""One side of pairs as a folder, a .zip or a single file: what is in it, what is wrong with it, its pictures."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from lit_gans.data.files import SUFFIXES, Header, ImageFiles, common_channels, complaints, some
from lit_gans.data.pictures import FilePictures, common_folders, stem

__all__ = ("Folder", "partners", "share_of")


class Folder:
    """The picture files of one side.

    Args:
        root: A folder, a .zip, or one picture file.
        option: Name of the argument that names it, for messages.
        channels: 1 or 3, to which pictures are converted; None if all files have the same.
        channels_option: Name of that argument, for messages.
    """

    def __init__(
        self, root: str | Path, option: str = "root", channels: int | None = None, channels_option: str = "channels"
    ) -> None:
        self.root = Path(root).expanduser()
        self.option = option
        self.asked = channels
        self.channels_option = channels_option

    @cached_property
    def files(self) -> ImageFiles:
        """The files, sorted by name.

        Raises:
            FileNotFoundError: If there are none.
            ValueError: If it is a damaged .zip.
        """
        if self.single:
            return ImageFiles(self.root.parent, [self.root.name])
        try:
            return ImageFiles(self.root, lenient=True)
        except FileNotFoundError as error:
            raise FileNotFoundError(self._renamed(str(error))) from None

    @cached_property
    def headers(self) -> dict[str, Header | str]:
        """The header of each file by name, or why it cannot be read."""
        return self.files.headers()

    @cached_property
    def good(self) -> dict[str, Header]:
        """The headers that can be read."""
        return {name: header for name, header in self.headers.items() if isinstance(header, Header)}

    @property
    def channels(self) -> int:
        """1 or 3: those asked for, else those of most files."""
        return self.asked or common_channels(self.good)

    @cached_property
    def stems(self) -> list[str]:
        """The name of each file without its ending and the folders that all lie in, by which partners are found."""
        names = self.files.names
        skip = common_folders(names)
        return [stem(name, skip) for name in names]

    def size(self, index: int) -> tuple[int, int] | None:
        """Height and width of a file, None if its header cannot be read."""
        header = self.headers[self.files.names[index]]
        return (header.height, header.width) if isinstance(header, Header) else None

    def complaints(self) -> list[str]:
        """Unreadable files and files of other channels, a sentence each."""
        return [self._renamed(sentence) for sentence in complaints(self.headers, self.files.root, self.asked, size=1)]

    @property
    def single(self) -> bool:
        """Whether it is one picture file, which was named itself."""
        return self.root.is_file() and self.root.suffix.lower() in SUFFIXES

    def too_small(self, least: int, load_size: int | None, halves: bool = False) -> list[str]:
        """The sentence on files whose shorter side is below ``least`` pixels, if there are any and none is resized."""
        sides = {name: min(h.width // 2 if halves else h.width, h.height) for name, h in self.good.items()}
        small = [f"{name} ({side} px)" for name, side in sides.items() if side < least]
        if not small or load_size is not None:
            return []
        return [
            f"{len(small)} of {len(self)} pictures in {self.root} are smaller than image_size {least}: {some(small)}; "
            f"set image_size to at most {min(sides.values())}, resize with load_size, or remove them"
        ]

    def twins(self) -> list[str]:
        """Names without their ending that several files have."""
        return sorted({s for s in self.stems if self.stems.count(s) > 1}) if len(set(self.stems)) < len(self) else []

    def pictures(self, indices: Sequence[int], channels: int | None = None) -> FilePictures:
        """The pictures at ``indices``."""
        names = [self.files.names[i] for i in indices]
        sizes = [self.size(i) or (0, 0) for i in indices]
        return FilePictures(ImageFiles(self.files.root, names), channels or self.channels, sizes)

    def _renamed(self, sentence: str) -> str:
        """A sentence on ``root`` and ``channels`` as one on the arguments that this side has."""
        renamed = sentence.replace("`root` (--data.root)", f"`{self.option}` (--data.{self.option})")
        old, new = "set channels=", f"set {self.channels_option}="
        return renamed.replace(old, new).replace("--data.channels", f"--data.{self.channels_option}")

    def __len__(self) -> int:
        return len(self.files)


def share_of(count: int, held_out: int | float) -> int:
    """How many of ``count`` files are held out.

    Raises:
        ValueError: If none would be left to learn from.
    """
    held = held_out if isinstance(held_out, int) else max(1, round(held_out * count)) if held_out else 0
    if held >= count:
        raise ValueError(f"held_out={held_out} leaves none of {count} pictures to learn from: set it lower")
    return held


def partners(sources: Folder, targets: Folder) -> tuple[list[tuple[int, int]], list[str]]:
    """Numbers of the files that belong together, (source, target) each, and what does not match, a sentence each."""
    found = []
    for side in (sources, targets):
        if twins := side.twins():
            found.append(
                f"{len(twins)} names stand for several files in {side.root}: {some(twins)}; "
                "keep one of those whose names differ by their ending alone"
            )
    ours, theirs = ({s: i for i, s in enumerate(side.stems)} for side in (sources, targets))
    for side, other, here, there in ((sources, targets, ours, theirs), (targets, sources, theirs, ours)):
        if alone := [side.files.names[i] for s, i in here.items() if s not in there]:
            found.append(
                f"{len(alone)} of {len(side)} pictures in {side.root} have no partner in {other.root}: {some(alone)}; "
                "give both the same name (endings may differ), or remove them"
            )
    return [(ours[s], theirs[s]) for s in sorted(ours.keys() & theirs.keys())], found

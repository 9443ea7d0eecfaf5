"""The masks of pictures with holes, from files: white, or lighter than half, is the hole."""

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_gans.data.files import Header, ImageFiles, some, to_mode, unreadable
from lit_gans.errors import UserError

__all__ = ("MaskFiles", "masks_of")


class MaskFiles:
    """Masks by the number of their picture.

    Attributes:
        files: The files of masks; None if there are none.
        of_picture: Number of the mask by that of the picture.
        warnings: What is strange about them.
    """

    def __init__(self, files: ImageFiles | None = None, of_picture: dict[int, int] | None = None) -> None:
        self.files, self.of_picture = files, of_picture or {}
        self.warnings: list[str] = []

    def of(self, index: int) -> Tensor | None:
        """The mask of a picture, uint8 (1, H, W), 1 in the hole, or None."""
        if self.files is None:
            return None
        mask = np.asarray(to_mode(self.files.decode(self.of_picture[index]), 1)) > 127
        return torch.from_numpy(mask.astype(np.uint8))[None]


def masks_of(path: str | None, files: ImageFiles, wanted: Any, model: str, takes_mask: bool) -> MaskFiles:
    """The masks of pictures, whose sizes are compared with theirs.

    Args:
        path: One mask for all pictures, or a folder or .zip with a mask of each name.
        files: The pictures that the masks are for.
        wanted: Numbers of those that are to be made.
        model: Name of the model.
        takes_mask: Whether it wants masks.

    Raises:
        UserError: if a mask is missing or superfluous, cannot be read, or has another size than its picture.
    """
    if not takes_mask:
        if path is not None:
            raise UserError(f"--mask: {model} fills no holes: leave it out")
        return MaskFiles()
    if path is None:
        raise UserError(
            f"{model} fills holes: give --mask FILE, or a folder with a mask of each picture's name; white is the hole"
        )
    place = Path(path)
    if not place.exists():
        raise UserError(f"--mask: there is nothing at {path}")
    single = place.is_file() and place.suffix.lower() != ".zip"
    try:
        masks = ImageFiles(place.parent, [place.name]) if single else ImageFiles(place, lenient=True)
    except FileNotFoundError:
        raise UserError(f"--mask: there are no pictures in {path}") from None
    stems = {str(PurePosixPath(name).with_suffix("")): index for index, name in enumerate(masks.names)}
    stem_of = {index: str(PurePosixPath(files.names[index]).with_suffix("")) for index in wanted}
    if missing := [files.names[index] for index, stem in stem_of.items() if not single and stem not in stems]:
        raise UserError(
            f"--mask: {len(missing)} of {len(stem_of)} pictures have no mask of their name in {path}: {some(missing)}"
        )
    found = MaskFiles(masks, {index: 0 if single else stems[stem] for index, stem in stem_of.items()})
    headers = masks.headers(sorted(set(found.of_picture.values())))
    if broken := [name for name, header in headers.items() if isinstance(header, str)]:
        raise UserError(f"--mask: {unreadable(broken, masks.root)}")
    odd = []
    for index, mask in found.of_picture.items():
        have, want = headers[masks.names[mask]], files.header(index)
        if isinstance(have, Header) and isinstance(want, Header) and have[:2] != want[:2]:
            odd.append(f"{masks.names[mask]} ({have[0]}x{have[1]}, {files.names[index]} {want[0]}x{want[1]})")
    if odd:
        raise UserError(f"--mask: {len(odd)} masks are not of their picture's size: {some(odd)}")
    first = {mask: index for index, mask in found.of_picture.items()}
    full = [
        masks.names[mask]
        for mask, index in first.items()
        if (hole := found.of(index)) is not None and hole.float().mean() > 0.5
    ]
    if full:
        found.warnings.append(
            f"more than half is hole in {some(full)}: white is the hole; invert masks in which black is"
        )
    return found

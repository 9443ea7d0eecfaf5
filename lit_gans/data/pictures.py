"""Whole pictures of any size, by number: from files, from a data set, halves of others, or others made anew."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Protocol, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from lit_gans.data.files import ImageFiles, UnreadableError, to_mode
from lit_gans.data.sources import Source, tensor

__all__ = (
    "FilePictures",
    "Halves",
    "Made",
    "Pictures",
    "Resized",
    "Some",
    "SourcePictures",
    "Stored",
    "common_folders",
    "cut",
    "decoded_bytes",
    "in_order",
    "one_size",
    "resized",
    "stack",
    "stem",
    "stored",
    "thumbnail",
    "with_channels",
)

_CHUNK = 256
_Result = TypeVar("_Result")


class Pictures(Protocol):
    """Pictures uint8 (C, H, W), all of the same channels and each of its own size."""

    @property
    def channels(self) -> int:
        """Channels of every picture."""
        ...

    def __len__(self) -> int:
        """Number of pictures."""
        ...

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of the picture at ``index``, as far as possible without decoding it."""
        ...

    def picture(self, index: int) -> Tensor:
        """The picture at ``index``, uint8 (C, H, W), which nobody writes to."""
        ...

    def name(self, index: int) -> str:
        """What a person calls the picture at ``index``."""
        ...


class FilePictures:
    """Pictures decoded from files whenever they are asked for.

    Args:
        files: The files that are decoded, in the order of their numbers.
        channels: 1 for grey, 3 for RGB, 4 for RGB with alpha.
        sizes: Height and width of each, as their headers tell.
    """

    def __init__(self, files: ImageFiles, channels: int, sizes: Sequence[tuple[int, int]]) -> None:
        self.files = files
        self.channels = channels
        self.sizes = sizes

    def __len__(self) -> int:
        return len(self.files)

    def size(self, index: int) -> tuple[int, int]:
        """Height and width, as the header tells."""
        return self.sizes[index]

    def picture(self, index: int) -> Tensor:
        """The decoded file.

        Raises:
            UnreadableError: Naming the file, if it cannot be decoded.
        """
        image = self.files.decode(index)
        if self.channels == 4:
            return tensor(image.convert("RGBA"))
        return tensor(to_mode(image, self.channels))

    def name(self, index: int) -> str:
        """The file's name below its root."""
        return self.files.names[index]


class SourcePictures:
    """The images of a data set as pictures.

    Args:
        source: The data set whose images are read; its labels are not.
        channels: 1 for grey, 3 for RGB; None as they are.
    """

    def __init__(self, source: Source, channels: int | None = None) -> None:
        self.source = source
        self.channels = channels or source.shape[0]

    def __len__(self) -> int:
        return len(self.source)

    def size(self, index: int) -> tuple[int, int]:
        """The same for all."""
        return self.source.shape[1], self.source.shape[2]

    def picture(self, index: int) -> Tensor:
        """The image at ``index``."""
        return self.stack([index])[0]

    def stack(self, indices: Sequence[int]) -> Tensor:
        """Several images at once, (N, C, H, W)."""
        return with_channels(self.source.images(torch.tensor(indices)), self.channels)

    def name(self, index: int) -> str:
        """The number of the image."""
        return self.source.name(index)


class Some:
    """Some of the pictures.

    Args:
        pictures: All pictures that can be chosen from.
        indices: The numbers of those that are wanted, in order.
    """

    def __init__(self, pictures: Pictures, indices: Sequence[int]) -> None:
        self.pictures = pictures
        self.indices = indices
        self.channels = pictures.channels

    def __len__(self) -> int:
        return len(self.indices)

    def size(self, index: int) -> tuple[int, int]:
        """That of the picture it stands for."""
        return self.pictures.size(self.indices[index])

    def picture(self, index: int) -> Tensor:
        """The picture it stands for."""
        return self.pictures.picture(self.indices[index])

    def stack(self, indices: Sequence[int]) -> Tensor:
        """Several at once, where they are of one size."""
        return stack(self.pictures, [self.indices[i] for i in indices])

    def name(self, index: int) -> str:
        """That of the picture it stands for."""
        return self.pictures.name(self.indices[index])


class Halves:
    """The left or the right halves of pictures; a column in the middle belongs to neither.

    Args:
        pictures: The whole pictures, which hold both halves side by side.
        right: Whether these are the right halves; otherwise the left ones.
    """

    def __init__(self, pictures: Pictures, right: bool) -> None:
        self.pictures = pictures
        self.right = right
        self.channels = pictures.channels

    def __len__(self) -> int:
        return len(self.pictures)

    def size(self, index: int) -> tuple[int, int]:
        """Height, and half of the width."""
        height, width = self.pictures.size(index)
        return height, width // 2

    def picture(self, index: int) -> Tensor:
        """The half."""
        whole = self.pictures.picture(index)
        half = whole.shape[-1] // 2
        return whole[..., -half:] if self.right else whole[..., :half]

    def name(self, index: int) -> str:
        """That of the whole."""
        return self.pictures.name(index)


class Resized:
    """Pictures whose shorter side is resized (bicubic, antialiased), the longer one in proportion.

    Args:
        pictures: The pictures, of any sizes.
        side: Pixels of the shorter side.
    """

    def __init__(self, pictures: Pictures, side: int) -> None:
        self.pictures = pictures
        self.side = side
        self.channels = pictures.channels

    def __len__(self) -> int:
        return len(self.pictures)

    def size(self, index: int) -> tuple[int, int]:
        """Height and width after resizing."""
        return resized(self.pictures.size(index), self.side)

    def picture(self, index: int) -> Tensor:
        """The resized picture."""
        return self._resize(self.pictures.picture(index), self.size(index))

    def stack(self, indices: Sequence[int]) -> Tensor:
        """Several at once, where they are of one size."""
        if one_size(self.pictures) is None:
            return torch.stack([self.picture(i) for i in indices])
        return self._resize(stack(self.pictures, indices), self.size(indices[0]))

    @staticmethod
    def _resize(pictures: Tensor, size: tuple[int, int]) -> Tensor:
        if tuple(pictures.shape[-2:]) == size:
            return pictures
        return tvf.resize(pictures, list(size), interpolation=tvf.InterpolationMode.BICUBIC, antialias=True)

    def name(self, index: int) -> str:
        """That of the picture."""
        return self.pictures.name(index)


class Made:
    """Pictures made of others by a function of the picture and its number.

    Args:
        pictures: What they are made of.
        make: From pictures (N, C, H, W) and their numbers to uint8 (N, ``channels``, H', W').
        channels: Channels of what ``make`` returns.
        scale: H / H', a divisor of all sides once they are cut to multiples of it.
        single: The function takes one picture at a time.
    """

    def __init__(
        self,
        pictures: Pictures,
        make: Callable[[Tensor, Sequence[int]], Tensor],
        channels: int,
        scale: int = 1,
        single: bool = False,
    ) -> None:
        self.pictures = pictures
        self.make = make
        self.channels = channels
        self.scale = scale
        self.single = single

    def __len__(self) -> int:
        return len(self.pictures)

    def size(self, index: int) -> tuple[int, int]:
        """That of the picture, divided by the scale."""
        height, width = self.pictures.size(index)
        return height // self.scale, width // self.scale

    def picture(self, index: int) -> Tensor:
        """The made picture."""
        return self.stack([index])[0]

    def stack(self, indices: Sequence[int]) -> Tensor:
        """Several at once, where they are of one size."""
        if self.single and len(indices) > 1:
            return torch.stack([self.picture(i) for i in indices])
        return self.make(cut(stack(self.pictures, indices), self.scale), indices)

    def name(self, index: int) -> str:
        """That of what it is made of."""
        return self.pictures.name(index)


class Stored:
    """Pictures held in memory.

    Args:
        pictures: uint8 (C, H, W) each, or all of one size as (N, C, H, W).
        names: What a person calls each of them.
    """

    def __init__(self, pictures: Sequence[Tensor] | Tensor, names: Sequence[str]) -> None:
        self.pictures = pictures
        self.names = names
        self.channels: int = pictures[0].shape[0]

    def __len__(self) -> int:
        return len(self.pictures)

    def size(self, index: int) -> tuple[int, int]:
        """Height and width."""
        height, width = self.pictures[index].shape[1:]
        return height, width

    def picture(self, index: int) -> Tensor:
        """The picture."""
        return self.pictures[index]

    def stack(self, indices: Sequence[int]) -> Tensor:
        """Several at once, where they are of one size."""
        if isinstance(self.pictures, Tensor):
            return torch.from_numpy(self.pictures.numpy().take(indices, axis=0))  # never waits for a thread pool
        return torch.stack([self.pictures[i] for i in indices])

    def name(self, index: int) -> str:
        """Its name."""
        return self.names[index]


def stack(pictures: Pictures, indices: Sequence[int]) -> Tensor:
    """Several pictures of one size at once, (N, C, H, W)."""
    together = getattr(pictures, "stack", None)
    return together(indices) if together else torch.stack([pictures.picture(i) for i in indices])


def stored(pictures: Pictures) -> Stored:
    """Hold all of the pictures in memory, read in threads.

    Raises:
        UnreadableError: Naming all files that cannot be decoded.
    """
    if isinstance(pictures, Stored):
        return pictures
    names = [pictures.name(i) for i in range(len(pictures))]
    if one_size(pictures) is not None:
        chunks = [range(n, min(n + _CHUNK, len(pictures))) for n in range(0, len(pictures), _CHUNK)]
        return Stored(torch.cat(in_order(lambda chunk: stack(pictures, chunk), chunks)), names)
    return Stored(in_order(pictures.picture, range(len(pictures))), names)


def in_order(work: Callable[..., _Result], items: Sequence[object]) -> list[_Result]:
    """The results of ``work`` on each item, computed in threads.

    Raises:
        UnreadableError: Naming all files that some call could not read.
    """
    results: list[_Result] = []
    broken: list[UnreadableError] = []
    with ThreadPoolExecutor() as pool:
        for future in [pool.submit(work, item) for item in items]:
            try:
                results.append(future.result())
            except UnreadableError as error:
                broken.append(error)
    if broken:
        raise broken[0] if len(broken) == 1 else UnreadableError(str(broken[0]), [n for e in broken for n in e.names])
    return results


def resized(size: tuple[int, int], side: int | None) -> tuple[int, int]:
    """Height and width once the shorter one is resized to ``side``, the longer one in proportion; None: as it is."""
    height, width = size
    return size if side is None else (round(height * side / min(size)), round(width * side / min(size)))


def one_size(pictures: Pictures) -> tuple[int, int] | None:
    """Height and width, if they are the same for all pictures."""
    if isinstance(pictures, SourcePictures) or (isinstance(pictures, Stored) and isinstance(pictures.pictures, Tensor)):
        return pictures.size(0)
    if isinstance(pictures, Some | Halves | Resized | Made) and one_size(pictures.pictures) is not None:
        return pictures.size(0)
    sizes = {pictures.size(i) for i in range(len(pictures))}
    return sizes.pop() if len(sizes) == 1 else None


def decoded_bytes(pictures: Pictures) -> int:
    """Bytes that all pictures take in memory."""
    if (size := one_size(pictures)) is not None:
        return len(pictures) * pictures.channels * size[0] * size[1]
    return pictures.channels * sum(h * w for h, w in map(pictures.size, range(len(pictures))))


def with_channels(images: Tensor, channels: int) -> Tensor:
    """Images (..., C, H, W) as grey (the luma of BT.601, rounded where images are uint8) or RGB."""
    if images.shape[-3] == channels:
        return images
    if channels == 1:
        red, green, blue = images[..., :3, :, :].float().unbind(-3)
        grey = (0.299 * red + 0.587 * green + 0.114 * blue).unsqueeze(-3)
        return grey if images.is_floating_point() else grey.round().to(images.dtype)
    return images[..., :1, :, :].expand(*images.shape[:-3], channels, *images.shape[-2:])


def cut(images: Tensor, scale: int) -> Tensor:
    """Rows and columns at the end are left out, so that both sides are multiples of the scale."""
    height, width = (side - side % scale for side in images.shape[-2:])
    return images[..., :height, :width]


def stem(name: str, skip: int) -> str:
    """A file's name without its ending and its first ``skip`` folders."""
    return "/".join(PurePosixPath(name).with_suffix("").parts[skip:])


def common_folders(names: Sequence[str]) -> int:
    """Number of folders that all files lie in."""
    folders = [name.split("/")[:-1] for name in names]
    low, high = min(folders), max(folders)
    return next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))


def thumbnail(picture: Tensor) -> Image.Image:
    """A picture (C, H, W) as Pillow has it, RGB; further channels, a mask or an alpha, are left out."""
    plain = picture[: 3 if picture.shape[0] > 2 else 1]
    array: np.ndarray = with_channels(plain, 3).permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(array))

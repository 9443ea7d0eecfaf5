"""Where images come from: arrays in memory, files read when asked for, or random numbers; always uint8 NCHW batches."""

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from lit_gans.data.files import ImageFiles, UnreadableError, in_threads, to_mode, unreadable


class Source(Protocol):
    """Images of one size with or without labels, fetched by the batch."""

    labels: Tensor | None
    """Class of each image, int64 (N,), or None."""
    shape: tuple[int, ...]
    """Channels, height and width of each image; the dimension of points."""

    @property
    def ready(self) -> bool:
        """Whether fetching is a mere look-up in memory, for which no process need read ahead."""
        ...

    def __len__(self) -> int:
        """Number of images."""
        ...

    def images(self, indices: Tensor) -> Tensor:
        """The images at ``indices`` (int64, one-dimensional), a new uint8 tensor (len(indices), C, H, W).

        What are no images comes as it is to be in the batch, float32 (len(indices), ...).
        """
        ...

    def name(self, index: int) -> str:
        """What a person calls the image at ``index``: a file name, or its number."""
        ...


class ArrayImages:
    """Images held in memory, brought to the channels and the size asked for when they are fetched.

    Args:
        array: uint8 (N, C, H, W) with C = 1 or 3.
        labels: int64 (N,), or None.
        channels: 1 for grey, 3 for RGB, None as they are.
        size: Height and width to resize to (antialiased), None as they are.
    """

    def __init__(
        self, array: Tensor, labels: Tensor | None = None, channels: int | None = None, size: int | None = None
    ) -> None:
        self.array = array
        self.labels = labels
        channels = channels or array.shape[1]
        self.shape: tuple[int, ...] = (channels, size, size) if size else (channels, array.shape[2], array.shape[3])

    @property
    def ready(self) -> bool:
        """Whether the array itself has the shape asked for, so that fetching is a mere look-up."""
        return tuple(self.array.shape[1:]) == self.shape

    def __len__(self) -> int:
        return len(self.array)

    def images(self, indices: Tensor) -> Tensor:
        """The images at ``indices``, uint8 NCHW."""
        images = torch.from_numpy(self.array.numpy().take(indices.numpy(), axis=0))  # never waits for a thread pool
        if images.shape[1] != self.shape[0]:
            images = tvf.rgb_to_grayscale(images) if self.shape[0] == 1 else images.repeat(1, 3, 1, 1)
        return images if images.shape[1:] == self.shape else fit(images, self.shape[1])

    def name(self, index: int) -> str:
        """The number of the image."""
        return f"#{index}"


class StackedImages:
    """Images whose channels are grey images of another source, put together when they are fetched.

    Args:
        parts: Grey images with labels, of at most ten classes.
        choice: The parts that each image is made of, int64 (N, 3). Its label reads theirs as the digits of a number:
            100 a + 10 b + c.

    Raises:
        ValueError: If the parts are not grey, or have no labels.

    Example:
        >>> digits = ArrayImages(torch.zeros(10, 1, 28, 28, dtype=torch.uint8), torch.arange(10))
        >>> stacks = StackedImages(digits, torch.tensor([[1, 2, 3], [0, 0, 7]]))
        >>> stacks.images(torch.tensor([0, 1])).shape, stacks.labels
        (torch.Size([2, 3, 28, 28]), tensor([123,   7]))
    """

    def __init__(self, parts: Source, choice: Tensor) -> None:
        if parts.labels is None or parts.shape[0] != 1:
            raise ValueError(f"only grey images with labels can be stacked, not {parts.shape}")
        self.parts = parts
        self.choice = choice
        self.shape = (choice.shape[1], *parts.shape[1:])
        self.labels: Tensor | None = (parts.labels[choice] * torch.tensor([100, 10, 1])).sum(1)

    @property
    def ready(self) -> bool:
        """Whether the parts are held in memory."""
        return self.parts.ready

    def __len__(self) -> int:
        return len(self.choice)

    def images(self, indices: Tensor) -> Tensor:
        """The images at ``indices``, uint8 NCHW."""
        return self.parts.images(self.choice[indices].flatten()).view(len(indices), *self.shape)

    def name(self, index: int) -> str:
        """The number of the image."""
        return f"#{index}"


class FileImages:
    """Images decoded from files whenever they are fetched.

    Args:
        files: The files, with their labels.
        channels: 1 for grey, 3 for RGB.
        size: Height and width: the shorter side is resized to it (antialiased), then the centre is cropped.
        crop: First cut a centred square of this many pixels, as is customary with CelebA.
    """

    ready = False

    def __init__(self, files: ImageFiles, channels: int, size: int, crop: int | None = None) -> None:
        self.files = files
        self.labels = files.labels
        self.shape: tuple[int, ...] = (channels, size, size)
        self.crop = crop

    def __len__(self) -> int:
        return len(self.files)

    def images(self, indices: Tensor) -> Tensor:
        """The images at ``indices``, uint8 NCHW.

        Raises:
            UnreadableError: Naming the files among them that cannot be decoded.
        """
        images: list[Tensor] = []
        broken: list[UnreadableError] = []
        for index in indices.tolist():
            try:
                images.append(self._image(index))
            except UnreadableError as error:
                broken.append(error)
        if broken:
            names = [name for error in broken for name in error.names]
            raise broken[0] if len(broken) == 1 else unreadable(names, self.files.root)
        return torch.stack(images)

    def _image(self, index: int) -> Tensor:
        image = tensor(to_mode(self.files.decode(index), self.shape[0]))
        return fit(tvf.center_crop(image, [self.crop, self.crop]) if self.crop else image, self.shape[1])

    def name(self, index: int) -> str:
        """The file's name below its root."""
        return self.files.names[index]


class FakeImages:
    """Random images and labels, each a function of its number alone.

    Args:
        length: Number of images.
        channels: 1 or 3.
        size: Height and width.
        classes: Number of classes, which take turns; None for no labels.
        start: Number of the first image, so that splits do not overlap.
    """

    ready = False

    def __init__(
        self, length: int, channels: int = 3, size: int = 32, classes: int | None = 10, start: int = 0
    ) -> None:
        self.labels = torch.arange(start, start + length) % classes if classes else None
        self._length = length
        self.shape: tuple[int, ...] = (channels, size, size)
        self._start = start

    def __len__(self) -> int:
        return self._length

    def images(self, indices: Tensor) -> Tensor:
        """The images at ``indices``, uint8 NCHW."""
        draws = (
            np.random.default_rng(self._start + i).integers(0, 256, self.shape, np.uint8) for i in indices.tolist()
        )
        return torch.from_numpy(np.stack(list(draws)))

    def name(self, index: int) -> str:
        """The number of the image."""
        return f"#{index}"


def tensor(image: Image.Image) -> Tensor:
    """A grey or RGB picture as uint8 (C, H, W)."""
    array = torch.from_numpy(np.array(image))
    return array[None] if array.ndim == 2 else array.permute(2, 0, 1).contiguous()


def fit(images: Tensor, size: int) -> Tensor:
    """Resize the shorter side of (..., C, H, W) to ``size``, antialiased, and crop the centre to a square."""
    if tuple(images.shape[-2:]) == (size, size):
        return images
    return tvf.center_crop(tvf.resize(images, [size], antialias=True), [size, size])


def into_memory(source: Source, root: Path) -> ArrayImages:
    """Decode all of a source, in threads, into one uint8 array.

    Raises:
        UnreadableError: Naming all files below ``root`` that cannot be decoded.
    """
    if isinstance(source, ArrayImages) and source.ready:
        return source
    array = torch.empty((len(source), *source.shape), dtype=torch.uint8)

    def fill(part: Tensor) -> None:
        array[part] = source.images(part)

    in_threads(fill, torch.arange(len(source)), root)
    return ArrayImages(array, source.labels)


def spread(length: int, most: int = 2048) -> list[int]:
    """Up to ``most`` indices, evenly spread over ``length``."""
    return list(range(0, length, -(-length // most)))


def try_some(source: Source, root: Path) -> None:
    """Decode a sample of the images, evenly spread, and keep nothing.

    Raises:
        UnreadableError: Naming all files below ``root`` among them that cannot be decoded.
    """

    def look(part: Tensor) -> None:
        source.images(part)

    in_threads(look, torch.tensor(spread(len(source))), root)

"""Real images from whatever holds them: a data set of anybody's, or a tensor."""

from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lit_gans.functional import mix_seed, to_uint8
from lit_gans.metrics.reference import RealImages

__all__ = ("real_images",)


class DatasetImages:
    """A map-style data set, whose items are an image, or a tuple or dict with one.

    Args:
        dataset: ``dataset[i]`` → image, ``(image, ...)`` or ``{"image": image}``; images (C, H, W), uint8 or float in
            [-1, 1]. What it draws at random is drawn from a copy of torch's generators.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def images(self, indices: Tensor) -> Tensor:
        """The images at ``indices``, uint8 NCHW.

        Raises:
            ValueError: if they are not images in [-1, 1].
        """
        with isolate_rng():
            torch.manual_seed(mix_seed(int(indices[0])))  # what it draws depends on the images alone
            items = [self.dataset[i] for i in indices.tolist()]
        images = torch.stack([_image_of(item) for item in items])
        if not images.is_floating_point():
            return images
        low, high = (float(value) for value in images.aminmax())
        if low < -1.001 or high > 1.001 or (low >= 0 and len(images) > 8):
            raise ValueError(
                f"the real images are in [{low:.3g}, {high:.3g}], but metrics take them as generators make them, "
                "in [-1, 1]: normalise them with mean 0.5 and std 0.5, or give uint8"
            )
        return to_uint8(images)


def _image_of(item: Any) -> Tensor:
    image = item["image"] if isinstance(item, dict) else item[0] if isinstance(item, tuple | list) else item
    if not isinstance(image, Tensor):
        raise ValueError(f"real images must be tensors, got {type(image).__name__}: add a transform that makes them so")
    return image


def real_images(images: Any) -> RealImages:
    """A data set or a tensor (N, C, H, W) as images by number; what already is one stays.

    Raises:
        TypeError: if it is none of these.
    """
    if hasattr(images, "images") and hasattr(images, "__len__"):
        return images
    if hasattr(images, "__getitem__") and hasattr(images, "__len__"):
        return DatasetImages(images)
    raise TypeError(f"real images come from a data set with a length, by number; {type(images).__name__} is none")

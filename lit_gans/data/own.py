"""Data sets of one's own: a function that gives images and labels, named as ``module:function``."""

import importlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ("is_own", "own_images")


def is_own(dataset: str) -> bool:
    """Whether a data set is named as ``module:function``."""
    return ":" in dataset


def own_images(dataset: str, train: bool) -> tuple[Tensor, Tensor | None] | None:
    """What the function gives: images uint8 (N, C, H, W) and labels int64 (N,); None where it gives nothing.

    Args:
        dataset: ``module:function``; the module must be importable. The function is called with ``train``, true for the
            images that are learned from, false for those that are held out, and returns images, or images and labels,
            as arrays or tensors: images uint8 (N, H, W), (N, H, W, C) or (N, C, H, W), C 1 or 3; labels from 0 up. None
            instead of held-out images: there are none.
        train: True for the images that are learned from, False for the held-out ones.

    Raises:
        ValueError: if there is no such function, or it gives something else.
    """
    module, _, name = dataset.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"dataset {dataset}: {error}; it must name a function, module:function") from error
    given: Any = function(train)
    if given is None:
        return None
    images, labels = given if isinstance(given, tuple) else (given, None)
    array = _tensor(dataset, "images", images)
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[1] not in (1, 3):
        array = array.permute(0, 3, 1, 2)
    if array.dtype != torch.uint8 or array.ndim != 4 or array.shape[1] not in (1, 3) or not len(array):
        raise ValueError(
            f"{dataset} gives images {tuple(np.shape(images))}, {array.dtype}: they must be uint8 (N, H, W), "
            "(N, H, W, C) or (N, C, H, W) with 1 or 3 channels"
        )
    if labels is None:
        return array.contiguous(), None
    classes = _tensor(dataset, "labels", labels)
    if classes.shape != (len(array),) or classes.is_floating_point() or int(classes.min()) < 0:
        raise ValueError(f"{dataset} gives labels {tuple(classes.shape)}: one whole number from 0 up for each image")
    return array.contiguous(), classes.long()


def _tensor(dataset: str, what: str, given: Any) -> Tensor:
    """An array or tensor of numbers.

    Raises:
        ValueError: if it holds none, or its rows differ in length.
    """
    try:
        return torch.as_tensor(np.asarray(given))
    except (TypeError, ValueError) as error:
        wanted = "uint8 and of one size" if what == "images" else "one whole number from 0 up for each image"
        raise ValueError(f"{dataset} gives {what} that are no array of numbers: they must be {wanted}") from error

"""Tasks: what makes the source of a pair out of its target."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from lit_gans.data.masks import Masks, parse_mask
from lit_gans.data.pictures import with_channels
from lit_gans.errors import unknown
from lit_gans.functional import imresize

__all__ = ("TASKS", "Step", "Task", "parse_task")

Draw = np.random.Generator
"""Where a step draws from."""


class Step:
    """One change of pictures; a chain of them is a task.

    A subclass is given its parameters by name and says whether it draws. Pictures are float32 (N, C, H, W) in [0, 255]
    between two steps; one that draws is given one picture at a time.
    """

    random = False
    """Whether it draws; a step that does not makes the same of a picture always."""
    margin = 0
    """Pixels beyond a window that its result there may depend on."""

    def __call__(self, images: Tensor, draw: Draw, goal: tuple[int, int]) -> Tensor:
        """The changed pictures.

        Args:
            images: float32 (N, C, H, W) in [0, 255].
            draw: Where random numbers come from.
            goal: Height and width that the source is to have in the end.
        """
        raise NotImplementedError


class Grey(Step):
    """The luma of BT.601, one channel."""

    def __call__(self, images: Tensor, draw: Draw, goal: tuple[int, int]) -> Tensor:
        return with_channels(images, 1)


class Downscale(Step):
    """Smaller by a whole number, by the field's bicubic kernel (MATLAB's ``imresize``)."""

    def __init__(self, scale: int) -> None:
        if not isinstance(scale, int) or isinstance(scale, bool) or scale < 1:
            raise ValueError(f"downscale wants a whole number of at least 1, such as {{downscale: 4}}, not {scale!r}")
        self.scale = scale
        self.margin = 4 * scale

    def __call__(self, images: Tensor, draw: Draw, goal: tuple[int, int]) -> Tensor:
        return imresize(images, 1 / self.scale)


class Invert(Step):
    """White becomes black, and each colour its complement."""

    def __call__(self, images: Tensor, draw: Draw, goal: tuple[int, int]) -> Tensor:
        return 255 - images


STEPS: dict[str, Callable[..., Step]] = {"downscale": Downscale, "grey": Grey, "invert": Invert}
TASKS = (*sorted(STEPS), "mask")


@dataclass(frozen=True)
class Task:
    """What makes the source of a pair out of its target: steps in order, then a mask.

    Example:
        >>> task = parse_task({"downscale": 2})
        >>> task(torch.zeros(1, 3, 8, 8, dtype=torch.uint8)).shape, task.scale
        (torch.Size([1, 3, 4, 4]), 2)
    """

    steps: tuple[Step, ...] = ()
    mask: Masks | None = None
    scale: int = 1
    spec: Any = field(default=None, compare=False)

    @property
    def random(self) -> bool:
        """Whether some step draws, so that each epoch has other sources."""
        return any(step.random for step in self.steps)

    @property
    def margin(self) -> int:
        """Pixels beyond a window that the source there may depend on, a multiple of the scale."""
        return -(-sum(step.margin for step in self.steps) // self.scale) * self.scale

    def channels(self, given: int) -> int:
        """Channels that the source has for a target of ``given`` channels, without the mask."""
        for step in self.steps:
            given = step(torch.zeros(1, given, 16, 16), np.random.default_rng(0), (16, 16)).shape[1]
        return given

    def __call__(self, images: Tensor, draw: Draw | None = None) -> Tensor:
        """Sources of targets, all steps but the mask.

        Args:
            images: uint8 (N, C, H, W), both sides multiples of the scale; N = 1 where the task draws.
            draw: Where random numbers come from, if it draws.

        Returns:
            uint8 (N, C', H / scale, W / scale).
        """
        goal = (images.shape[-2] // self.scale, images.shape[-1] // self.scale)
        draw = draw or np.random.default_rng(0)
        result = images.float()
        for step in self.steps:
            result = step(result, draw, goal)
        return result.round_().clamp_(0, 255).to(torch.uint8)


def parse_task(spec: Any) -> Task:
    """A task from plain values: a name, ``{name: parameters}``, or a list of these, which are applied in order.

    Raises:
        ValueError: If a name or a parameter is unknown, or the order makes no sense.
    """
    if isinstance(spec, str) and spec.strip()[:1] in ("{", "["):  # the command line hands YAML on as text
        spec = yaml.safe_load(spec)
    task = Task(spec=spec)
    for entry in spec if isinstance(spec, list) else [spec]:
        name, given = _named(entry)
        if task.mask is not None:
            raise ValueError(f"a mask ends a task: move {name} before it")
        if name == "mask":
            task = replace(task, mask=parse_mask(given))
            continue
        step = _step(name, given)
        scale = task.scale * step.scale if isinstance(step, Downscale) else task.scale
        task = replace(task, steps=(*task.steps, step), scale=scale)
    return task


def _named(entry: Any) -> tuple[str, Any]:
    """The name of a step and its parameters, None without."""
    if isinstance(entry, str):
        name, given = entry, None
    elif isinstance(entry, dict) and len(entry) == 1:
        ((name, given),) = entry.items()
    else:
        raise ValueError(f"a task is a name, {{name: parameters}}, or a list of these, not {entry!r}")
    if name not in TASKS:
        raise ValueError(unknown("task", name, TASKS))
    return name, given


def _step(name: str, given: Any) -> Step:
    kind = STEPS[name]
    if given is None or given is True:
        return kind()
    return kind(**given) if isinstance(given, dict) else kind(given)

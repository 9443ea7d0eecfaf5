"""Codes that a model draws for its generator, in the place of labels, and proxies of classes."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.models.mechanics.sampling import SamplingModule

__all__ = ("CodedModule", "WithCodes", "WithProxies")


class CodedModule(SamplingModule):
    """A model with categorical codes, as one-hot vectors, and continuous ones, uniform on [-1, 1], side by side."""

    categorical: tuple[int, ...]
    continuous: int

    def check_codes(self, categorical: Sequence[int], continuous: int, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The further arguments of a model whose codes are drawn for each generated image.

        Raises:
            ValueError: if there are no codes, or classes beside them.
        """
        name = type(self).__name__
        if kwargs.get("num_classes") is not None:
            raise ValueError(f"{name} finds classes by itself, as codes: leave num_classes out")
        if any(values < 2 for values in categorical) or continuous < 0 or not (categorical or continuous):
            raise ValueError(
                f"{name} needs codes: categorical of at least 2 values each, or continuous of at least 1, got "
                f"{list(categorical)} and {continuous}"
            )
        return {**kwargs, "uniform_labels": True}

    @property
    def code_width(self) -> int:
        """Numbers that describe the codes of an image."""
        return sum(self.categorical) + self.continuous

    @property
    def head_width(self) -> int | None:
        """Scores, means and log standard deviations of the codes of an image."""
        return self.code_width + self.continuous

    @property
    def entropy(self) -> float:
        """H(c) in nats, the largest value of the mutual information."""
        return sum(map(math.log, self.categorical)) + self.continuous * math.log(2)

    def draw_labels(self, n: int, rng: torch.Generator) -> Tensor:
        """Codes of shape (n, code_width)."""
        device = rng.device
        one_hot = [
            F.one_hot(torch.randint(values, (n,), generator=rng, device=device), values).float()
            for values in self.categorical
        ]
        return torch.cat([*one_hot, torch.rand(n, self.continuous, generator=rng, device=device) * 2 - 1], dim=1)

    def set_codes(self, codes: Tensor, values: Sequence[float | None]) -> Tensor:
        """Drawn codes (n, code_width) with some of them as given.

        Args:
            codes: As ``draw_labels`` draws them.
            values: One for each code: the number of the category, counted from 0, of a categorical one, the value of a
                continuous one; None leaves what was drawn.

        Raises:
            ValueError: if these are not as many as there are codes, or there is no such category.
        """
        if len(values) != len(self.categorical) + self.continuous:
            told = f"{len(self.categorical)} categorical and {self.continuous} continuous"
            raise ValueError(f"{type(self).__name__} has {told} codes, got {len(values)} values")
        widths = [*self.categorical, *[1] * self.continuous]
        parts = list(codes.clone().split(widths, dim=1))
        for part, value, categories in zip(parts, values, [*self.categorical, *[0] * self.continuous], strict=True):
            if value is None:
                continue
            if not categories:
                part.fill_(value)
            elif value in range(categories):
                part.zero_()[:, int(value)] = 1
            else:
                raise ValueError(f"a categorical code must be in 0..{categories - 1}, got {value:g}")
        return torch.cat(parts, dim=1)

    def _given_labels(self, y: Any, n: int) -> Tensor:
        codes = torch.as_tensor(y, dtype=torch.float32).cpu()
        if codes.shape[-1:] != (self.code_width,) or codes.ndim > 2 or (codes.ndim == 2 and len(codes) != n):
            raise ValueError(
                f"y must be the codes of one image or of {n}, each of {self.code_width} numbers, got shape "
                f"{tuple(codes.shape)}"
            )
        return codes.expand(n, -1)

    def judge(self, x: Tensor, y: Tensor | None = None) -> Any:
        """What the discriminator returns after ``augment``; codes are for it to guess, not to see."""
        return super().judge(x)  # type: ignore[misc]


class WithCodes(nn.Module):
    """A generator of latents and codes, made of one of latents with the codes appended."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor, codes: Tensor) -> Tensor:
        """Latents (N, latent_dim) and codes (N, code_width) to images."""
        images: Tensor = self.network(torch.cat([z, codes.to(z.dtype)], dim=1))
        return images


class WithProxies(nn.Module):
    """A discriminator and an embedding of each class, learnt with it.

    Raises:
        ValueError: if there are no classes.
    """

    def __init__(self, network: nn.Module, num_classes: int | None, embed_dim: int) -> None:
        super().__init__()
        if num_classes is None:
            raise ValueError("proxies are of classes, and there are none: give num_classes, and data that has labels")
        self.network, self.proxies = network, nn.Embedding(num_classes, embed_dim)

    def forward(self, *inputs: Tensor) -> Any:
        """What the network answers."""
        return self.network(*inputs)

"""Noise and sampling: everything random is a pure function of a seed and an index."""

import copy
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from lit_gans.functional import Batch, estimate_batch_statistics_, mix_seed
from lit_gans.modules import eval_mode

__all__ = ("SamplingModule",)

_BLOCK = 64  # samples that share one seed in ``draw_inputs``
_STANDING = 20  # forward passes for the batch statistics of the averaged generator
_STANDING_SEED = mix_seed(-1)  # of latents for batch statistics alone


class SamplingModule(LightningModule):
    """A generator, its noise and its samples."""

    generator: nn.Module
    g_ema: nn.Module  # there iff the generator is averaged
    latent_dim: int
    num_classes: int | None
    seed: int | None
    truncates = False  # whether ``sample`` takes a truncation
    seed_offset = 0  # raised to have other noise from here on, as after a rollback
    _rng: torch.Generator | None = None
    _average_moved = False  # since its batch statistics were estimated

    @property
    def rng(self) -> torch.Generator:
        """The one source of randomness while training: latents, labels, interpolation, augmentation."""
        if self._rng is None or self._rng.device != self.device:
            self._rng = torch.Generator(self.device)
        return self._rng

    def reseed(self, *keys: int) -> torch.Generator:
        """Set ``rng`` to a pure function of (seed, keys, rank), so that nothing of it need be stored to resume."""
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if self.seed is None else self.seed
        offset = (self.seed_offset,) if self.seed_offset else ()
        return self.rng.manual_seed(mix_seed(seed, *keys, self.global_rank, *offset))

    def reseed_global(self) -> None:
        """The same for the generators that dropout and foreign augmentations draw from, which take no other."""
        seed = mix_seed(self.rng.initial_seed(), 1)
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index or 0].manual_seed(seed)

    def draw_latents(self, n: int, rng: torch.Generator) -> Tensor:
        """Noise of shape (n, latent_dim), standard normal, on the device of ``rng``."""
        return torch.randn(n, self.latent_dim, generator=rng, device=rng.device)

    def draw_labels(self, n: int, rng: torch.Generator) -> Tensor | None:
        """Labels of shape (n,), uniform over the classes; None for a model without."""
        if self.num_classes is None:
            return None
        return torch.randint(self.num_classes, (n,), generator=rng, device=rng.device)

    def draw_inputs(
        self, n: int, y: int | Sequence[int] | Tensor | None = None, seed: int = 0, start: int = 0
    ) -> tuple[Tensor, Tensor | None]:
        """Latents and labels of the samples ``start`` to ``start + n`` of a seed, on the CPU.

        Each depends on its index and the seed alone: not on n, on batches, on the device or on the number of processes.

        Args:
            n: Number of samples whose latents and labels are drawn, at least 1.
            y: One label for all, one for each, or None to draw them.
            seed: Seed of the endless sequence of samples.
            start: Index of the first sample in the sequence.

        Raises:
            ValueError: if labels are given to a model without, out of range, or not one for each.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        rng, blocks = torch.Generator(), range(start // _BLOCK, (start + n - 1) // _BLOCK + 1)
        drawn = []
        for block in blocks:
            rng.manual_seed(mix_seed(seed, block))
            drawn.append((self.draw_latents(_BLOCK, rng), self.draw_labels(_BLOCK, rng)))
        part = slice(start - blocks[0] * _BLOCK, start - blocks[0] * _BLOCK + n)
        z = torch.cat([latents for latents, _ in drawn])[part]
        if y is not None:
            return z, self._given_labels(y, n)
        labels = [label for _, label in drawn if label is not None]
        return z, torch.cat(labels)[part] if labels else None

    def _given_labels(self, y: int | Sequence[int] | Tensor, n: int) -> Tensor:
        if self.num_classes is None:
            raise ValueError("y was given, but the model has no classes (num_classes=None)")
        labels = torch.as_tensor(y, dtype=torch.int64).cpu()
        labels = labels.expand(n) if labels.ndim == 0 else labels
        if labels.shape != (n,):
            raise ValueError(f"y must be one label or {n} of them, got shape {tuple(labels.shape)}")
        if not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            raise ValueError(f"y must be in 0..{self.num_classes - 1}, got {int(labels.min())}..{int(labels.max())}")
        return labels

    def fixed_inputs(self, n: int, real: Batch | None = None, seed: int = 0) -> Batch:
        """Inputs of the generator to look at it with, the same at each call, on its device and in its type.

        Args:
            n: Number of latents.
            real: Images of the data, for models that make theirs of such.
            seed: Seed of the latents.
        """
        like = next(self.generator.parameters(), torch.zeros((), device=self.device))
        z, y = self.draw_inputs(n, seed=seed)
        return Batch(z.to(like), None if y is None else y.to(like.device))

    def trial_inputs(self, n: int) -> Batch:
        """Inputs to try the generator with before training, on its device and in its type; of no seed of samples."""
        like, rng = next(self.generator.parameters(), torch.zeros(())), torch.Generator().manual_seed(0)
        z, y = self.draw_latents(n, rng).to(like), self.draw_labels(n, rng)
        return Batch(z, None if y is None else y.to(like.device))

    @torch.no_grad()
    def sample(
        self,
        n: int,
        y: int | Sequence[int] | Tensor | None = None,
        seed: int | None = None,
        ema: bool = True,
        batch_size: int = 256,
        start: int = 0,
        truncation: float | None = None,
    ) -> Tensor:
        """Images in eval mode without gradients, float (n, C, H, W) in [-1, 1].

        Args:
            n: Number of images, at least 1.
            y: One label for all, one for each, or None to draw them.
            seed: Same seed, same images, whatever n and the batches; None takes one from torch's global generator.
            ema: Use the averaged generator where there is one.
            batch_size: Images made at a time.
            start: Index of the first sample in the sequence that the seed stands for.
            truncation: Less variety for more fidelity, where the paper knows how: BigGAN, StyleGAN2.

        Raises:
            ValueError: if labels are given to a model without, out of range, or not one for each; or a truncation to
                a model that knows none.
        """
        seed = int(torch.randint(2**62, ())) if seed is None else seed
        z, y = self.draw_inputs(n, y, seed, start)
        if ema:
            self.settle_average()
        network = getattr(self, "g_ema", self.generator) if ema else self.generator
        z = z.to(next(network.parameters(), z).dtype)  # float64 under Trainer(precision="64-true")
        with eval_mode(network):
            parts = []
            for i in range(0, n, batch_size):
                labels = None if y is None else y[i : i + batch_size].to(self.device)
                parts.append(self.render(network, z[i : i + batch_size].to(self.device), labels, truncation))
        images = torch.cat(parts)
        return images.clamp(-1, 1) if images.ndim == 4 else images  # points have no range

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Images from the latents of a batch, (N, latent_dim) or (latents, labels), by the averaged generator.

        Raises:
            ValueError: if the batch holds anything else, such as images.
        """
        z, *y = batch if isinstance(batch, (list, tuple)) else (batch,)
        if not isinstance(z, Tensor) or z.shape[1:] != (self.latent_dim,):
            given = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
            raise ValueError(
                f"predict makes images from latents (N, {self.latent_dim}), alone or with labels, got {given}; "
                "model.sample(n) draws latents by itself"
            )
        self.settle_average()
        return self.render(getattr(self, "g_ema", self.generator), z, y[0] if y and self.num_classes else None)

    def render(self, network: nn.Module, z: Tensor, y: Tensor | None, truncation: float | None = None) -> Tensor:
        """What a generator, live or averaged, makes of latents and labels when it is sampled from."""
        if truncation is not None:
            raise ValueError(f"{type(self).__name__} knows no truncation: leave it out")
        images: Tensor = network(z) if y is None else network(z, y)
        return images

    def standing_statistics(
        self, truncation: float | None = None, batches: int = 100, batch_size: int = 64, ema: bool = True
    ) -> nn.Module:
        """A copy of the generator whose batch norm has the statistics of samples, at this truncation.

        Put it in the place of ``g_ema``, or of ``generator``, to sample from it.

        Args:
            truncation: As for ``sample``.
            batches: Forward passes over whose statistics the mean is taken.
            batch_size: Number of samples in each forward pass.
            ema: Copy the averaged generator where there is one.

        Raises:
            ValueError: if the generator has no batch norm.
        """
        network = copy.deepcopy(getattr(self, "g_ema", self.generator) if ema else self.generator).eval()
        if not self.estimate_statistics_(network, truncation, batches, batch_size):
            raise ValueError(f"{type(network).__name__} has no batch norm whose statistics could be estimated")
        return network

    @torch.no_grad()
    def estimate_statistics_(
        self, network: nn.Module, truncation: float | None = None, batches: int = _STANDING, batch_size: int = 64
    ) -> int:
        """Give the batch norm of a generator, live or averaged, the statistics of samples, in place.

        The latents are always the same ones, which no sample has. The result depends on the weights alone, is the same
        on every process, and nothing that training draws is drawn. See ``functional.estimate_batch_statistics_``.

        Args:
            network: The generator whose statistics are estimated.
            truncation: As for ``sample``.
            batches: Forward passes over whose statistics the mean is taken.
            batch_size: Number of samples in each forward pass.

        Returns:
            The number of layers with such statistics.
        """

        def forward(start: int) -> None:
            z, y = self.draw_inputs(batch_size, seed=_STANDING_SEED, start=start)
            z = z.to(self.device, next(network.parameters(), z).dtype)
            self.render(network, z, None if y is None else y.to(self.device), truncation)

        passes = [partial(forward, start) for start in range(0, batches * batch_size, batch_size)]
        with isolate_rng(), eval_mode(network):
            return estimate_batch_statistics_(network, passes)

    def settle_average(self) -> None:
        """Before the averaged generator is used or saved: batch statistics that fit its weights, if these have moved.

        Averaged weights have other activations than the live ones, whose statistics they would be given otherwise.
        """
        if self._average_moved:
            self.estimate_statistics_(self.g_ema)
            self._average_moved = False

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] from latents (N, latent_dim) and, for a conditional model, labels (N,)."""
        return self.generate(z, y)

    def generate(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """What the live generator makes of latents and labels."""
        return self.generator(z) if y is None else self.generator(z, y)

"""What a user wants to know when training has ended: did it work, and what next?"""

from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor

from lit_gans.data.sources import spread as evenly
from lit_gans.metrics import ModeCoverage, modes_of
from lit_gans.models import GAN

__all__ = ("alike", "verdict")

_SAMPLES = 64
_FEW_PASSES = 10  # through the data, after which a run may still be called short
_ALIKE = 0.5  # share of the data's variety, below which samples are called alike


def verdict(trainer: Trainer, model: GAN, folder: Path) -> str:
    """One line: how long it was, what was measured, how samples compare with the data, and what to do next.

    Args:
        trainer: The trainer, after ``fit``.
        model: The model it has trained.
        folder: The folder of the run.
    """
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    source = data.source("train") if hasattr(data, "source") else None
    length, next_steps = f"{trainer.global_step} steps", []
    measured = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/") and "_loss" not in k}
    parts = [f"{name} {value:.3g}" for name, value in measured.items()]
    if source is not None:
        passes = model.images_seen / len(source)
        length += f", {passes:.3g} times through the data"
        said, well = _against(model, data, source)
        parts.append(said)
        if passes < _FEW_PASSES:
            next_steps.append(f"train longer (fit --resume {folder} --trainer.max_steps {10 * trainer.global_step})")
        elif not well:
            next_steps.append("try another seed, a penalty (--config configs/regularizers/r1.yaml) or another model")
    next_steps.append(f"measure it (evaluate {folder})")
    return f"result: {'; '.join([length, *parts])}; next: {', or '.join(next_steps)}"


def _against(model: GAN, data: Any, source: Any) -> tuple[str, bool]:
    """What samples say beside the data, and whether that is well: modes where they are known, else their variety."""
    modes = modes_of(data) if getattr(data, "mixture", None) is not None else None
    if modes is not None:
        coverage = ModeCoverage(modes)
        coverage.update(model.sample(2500, seed=0))
        found, total = int(coverage.compute().modes), len(data.mixture.centers)
        return f"samples reach {found} of {total} modes", found == total
    samples = model.sample(_SAMPLES, seed=0).float().cpu()
    if not samples.isfinite().all():
        return "samples are not finite", False
    real = source.images(torch.tensor(evenly(len(source), _SAMPLES)))
    real = real / 127.5 - 1 if real.dtype == torch.uint8 else real
    share = alike(samples, real)
    return (
        f"samples vary {share:.2f} times as much as the data{', which is little' * (share < _ALIKE)}",
        share >= _ALIKE,
    )


def alike(samples: Tensor, real: Tensor) -> float:
    """Mean distance between two samples, as a share of that between two real images; 1 where they vary alike.

    Args:
        samples: Generated samples, shape (N, ...), at least two.
        real: Real samples, shape (M, ...), at least two.

    Example:
        >>> alike(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [2.0]]))
        0.5
    """
    ours, theirs = (float(torch.pdist(x.flatten(1)).mean()) for x in (samples, real))
    return ours / theirs if theirs else float("nan")

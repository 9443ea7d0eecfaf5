"""Generative adversarial networks for PyTorch Lightning: one game, many papers.

Public names are imported when they are first used (PEP 562), so that ``import lit_gans`` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

from lit_gans.version import __version__

if TYPE_CHECKING:
    from lit_gans.callbacks import (
        BalanceReport,
        CollapseDetector,
        ExplosionDetector,
        GenerativeMetrics,
        GradientNormMonitor,
        ReplicaCheck,
        SampleGrid,
        StopOnPlateau,
        TrainingDiverged,
    )
    from lit_gans.data import ImageDataModule
    from lit_gans.metrics import ClassStatistics, FrechetDistance, InceptionScore, KernelDistance, PrecisionRecall
    from lit_gans.models import CGAN, DCGAN, GAN, SNGAN, WGAN, WGANGP
    from lit_gans.strategies import GANDDPStrategy

_ROOM_OF = {
    "BalanceReport": "callbacks",
    "CGAN": "models",
    "ClassStatistics": "metrics",
    "CollapseDetector": "callbacks",
    "DCGAN": "models",
    "ExplosionDetector": "callbacks",
    "FrechetDistance": "metrics",
    "GAN": "models",
    "GANDDPStrategy": "strategies",
    "GenerativeMetrics": "callbacks",
    "GradientNormMonitor": "callbacks",
    "ImageDataModule": "data",
    "InceptionScore": "metrics",
    "KernelDistance": "metrics",
    "PrecisionRecall": "metrics",
    "ReplicaCheck": "callbacks",
    "SNGAN": "models",
    "SampleGrid": "callbacks",
    "StopOnPlateau": "callbacks",
    "TrainingDiverged": "callbacks",
    "WGAN": "models",
    "WGANGP": "models",
}

__all__ = (
    "CGAN",
    "DCGAN",
    "GAN",
    "SNGAN",
    "WGAN",
    "WGANGP",
    "BalanceReport",
    "ClassStatistics",
    "CollapseDetector",
    "ExplosionDetector",
    "FrechetDistance",
    "GANDDPStrategy",
    "GenerativeMetrics",
    "GradientNormMonitor",
    "ImageDataModule",
    "InceptionScore",
    "KernelDistance",
    "PrecisionRecall",
    "ReplicaCheck",
    "SampleGrid",
    "StopOnPlateau",
    "TrainingDiverged",
    "__version__",
)


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'lit_gans' has no attribute {name!r}; it has {', '.join(sorted(_ROOM_OF))}")
    return getattr(importlib.import_module(f"lit_gans.{_ROOM_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

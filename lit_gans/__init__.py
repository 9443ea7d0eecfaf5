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
    from lit_gans.functional import Batch
    from lit_gans.metrics import ClassStatistics, FrechetDistance, InceptionScore, KernelDistance, PrecisionRecall
    from lit_gans.models import (
        ACGAN,
        BEGAN,
        CGAN,
        DCGAN,
        DRAGAN,
        EBGAN,
        GAN,
        LSGAN,
        R3GAN,
        SAGAN,
        SNGAN,
        SSGAN,
        WGAN,
        WGANGP,
        WGANLP,
        BigGAN,
        HingeGAN,
        InfoGAN,
        MinimaxGAN,
        PacGAN,
        ProjectionGAN,
        RaGAN,
        ReACGAN,
        StyleGAN2,
        UnrolledGAN,
        load,
    )
    from lit_gans.strategies import GANDDPStrategy

_ROOM_OF = {
    "ACGAN": "models",
    "BEGAN": "models",
    "BigGAN": "models",
    "DRAGAN": "models",
    "EBGAN": "models",
    "HingeGAN": "models",
    "InfoGAN": "models",
    "LSGAN": "models",
    "MinimaxGAN": "models",
    "PacGAN": "models",
    "ProjectionGAN": "models",
    "R3GAN": "models",
    "RaGAN": "models",
    "ReACGAN": "models",
    "SAGAN": "models",
    "SSGAN": "models",
    "StyleGAN2": "models",
    "UnrolledGAN": "models",
    "WGANLP": "models",
    "BalanceReport": "callbacks",
    "Batch": "functional",
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
    "load": "models",
}

__all__ = (
    "ACGAN",
    "BEGAN",
    "CGAN",
    "DCGAN",
    "DRAGAN",
    "EBGAN",
    "GAN",
    "LSGAN",
    "R3GAN",
    "SAGAN",
    "SNGAN",
    "SSGAN",
    "WGAN",
    "WGANGP",
    "WGANLP",
    "BalanceReport",
    "Batch",
    "BigGAN",
    "ClassStatistics",
    "CollapseDetector",
    "ExplosionDetector",
    "FrechetDistance",
    "GANDDPStrategy",
    "GenerativeMetrics",
    "GradientNormMonitor",
    "HingeGAN",
    "ImageDataModule",
    "InceptionScore",
    "InfoGAN",
    "KernelDistance",
    "MinimaxGAN",
    "PacGAN",
    "PrecisionRecall",
    "ProjectionGAN",
    "RaGAN",
    "ReACGAN",
    "ReplicaCheck",
    "SampleGrid",
    "StopOnPlateau",
    "StyleGAN2",
    "TrainingDiverged",
    "UnrolledGAN",
    "__version__",
    "load",
)


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'lit_gans' has no attribute {name!r}; it has {', '.join(sorted(_ROOM_OF))}")
    return getattr(importlib.import_module(f"lit_gans.{_ROOM_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

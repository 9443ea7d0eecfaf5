"""Differentiable augmentation: any callable images → images can be a model's ``augment``."""

from lit_gans.augment.ada import ADA
from lit_gans.augment.diffaugment import DiffAugment

__all__ = ("ADA", "DiffAugment")

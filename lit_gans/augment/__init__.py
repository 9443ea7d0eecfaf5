"""Differentiable augmentation: any callable images → images can be a model's ``augment``."""

"""Add-on penalties: composed with any paper, ``GAN(..., regularizers=[R1(weight=10.0)])``."""

from lit_gans.regularizers.base import Regularizer
from lit_gans.regularizers.r1 import R1

__all__ = ("R1", "Regularizer")

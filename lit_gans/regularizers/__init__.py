"""Add-on penalties: composed with any paper, ``GAN(..., regularizers=[R1(weight=10.0)])``."""

from lit_gans.regularizers.consistency import Consistency, LatentDiversity
from lit_gans.regularizers.gradient_penalty import GradientPenalty
from lit_gans.regularizers.lecam import LeCam
from lit_gans.regularizers.orthogonal import Orthogonal
from lit_gans.regularizers.path_length import PathLength
from lit_gans.regularizers.perceptual import PerceptualLoss
from lit_gans.regularizers.r1 import R1, R2
from lit_gans.regularizers.regularizer import Regularizer

__all__ = (
    "R1",
    "R2",
    "Consistency",
    "GradientPenalty",
    "LatentDiversity",
    "LeCam",
    "Orthogonal",
    "PathLength",
    "PerceptualLoss",
    "Regularizer",
)

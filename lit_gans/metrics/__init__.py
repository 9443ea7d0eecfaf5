"""Distances between sets of images, each stamped with the protocol it was measured by."""

from lit_gans.metrics.classes import ClassStatistics
from lit_gans.metrics.evaluation import METRICS, Evaluation, Result
from lit_gans.metrics.extractors import (
    Classifier,
    FeatureExtractor,
    Features,
    InceptionV3,
    ModuleExtractor,
    load_extractor,
)
from lit_gans.metrics.frechet import FrechetDistance, Moments, frechet_distance
from lit_gans.metrics.inception_score import InceptionScore, inception_score
from lit_gans.metrics.kernel import KernelDistance, kernel_distance
from lit_gans.metrics.lpips import LPIPS
from lit_gans.metrics.modes import ModeCoverage, PointModes, StackedDigits, modes_of, reverse_kl
from lit_gans.metrics.pictures import L1, PictureMetric, absolute_error
from lit_gans.metrics.prdc import Manifold, PrecisionRecall, precision_recall
from lit_gans.metrics.protocol import PROTOCOLS, Protocol, differences, load_protocol
from lit_gans.metrics.psnr import PSNR, psnr
from lit_gans.metrics.reference import Reference, real_statistics
from lit_gans.metrics.ssim import SSIM, ssim
from lit_gans.metrics.translation import PICTURE_METRICS, PICTURE_PROTOCOLS, PictureEvaluation, PictureProtocol

__all__ = (
    "L1",
    "LPIPS",
    "METRICS",
    "PICTURE_METRICS",
    "PICTURE_PROTOCOLS",
    "PROTOCOLS",
    "PSNR",
    "SSIM",
    "ClassStatistics",
    "Classifier",
    "Evaluation",
    "FeatureExtractor",
    "Features",
    "FrechetDistance",
    "InceptionScore",
    "InceptionV3",
    "KernelDistance",
    "Manifold",
    "ModeCoverage",
    "ModuleExtractor",
    "Moments",
    "PictureEvaluation",
    "PictureMetric",
    "PictureProtocol",
    "PointModes",
    "PrecisionRecall",
    "Protocol",
    "Reference",
    "Result",
    "StackedDigits",
    "absolute_error",
    "differences",
    "frechet_distance",
    "inception_score",
    "kernel_distance",
    "load_extractor",
    "load_protocol",
    "modes_of",
    "precision_recall",
    "psnr",
    "real_statistics",
    "reverse_kl",
    "ssim",
)

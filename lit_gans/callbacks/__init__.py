"""Lightning callbacks, each of use to any LightningModule with the few attributes its docstring names."""

from lit_gans.callbacks.generative_metrics import GenerativeMetrics
from lit_gans.callbacks.plateau import StopOnPlateau
from lit_gans.callbacks.progress import GameProgressBar
from lit_gans.callbacks.replicas import ReplicaCheck
from lit_gans.callbacks.samples import SampleGrid

__all__ = (
    "GameProgressBar",
    "GenerativeMetrics",
    "ReplicaCheck",
    "SampleGrid",
    "StopOnPlateau",
)

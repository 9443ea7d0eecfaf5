"""Lightning callbacks, each of use to any LightningModule with the few attributes its docstring names."""

from lit_gans.callbacks.generative_metrics import GenerativeMetrics
from lit_gans.callbacks.plateau import StopOnPlateau
from lit_gans.callbacks.progress import GameProgressBar
from lit_gans.callbacks.replicas import ReplicaCheck
from lit_gans.callbacks.run import BestCheckpoint, LastCheckpoint, SaveConfig
from lit_gans.callbacks.samples import SampleGrid
from lit_gans.callbacks.signals import StopOnSignal

__all__ = (
    "BestCheckpoint",
    "GameProgressBar",
    "GenerativeMetrics",
    "LastCheckpoint",
    "ReplicaCheck",
    "SampleGrid",
    "SaveConfig",
    "StopOnPlateau",
    "StopOnSignal",
)

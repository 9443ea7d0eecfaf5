"""Lightning callbacks, each of use to any LightningModule with the few attributes its docstring names."""

from lit_gans.callbacks.balance import BalanceReport
from lit_gans.callbacks.collapse import CollapseDetector
from lit_gans.callbacks.explosion import ExplosionDetector
from lit_gans.callbacks.generative_metrics import GenerativeMetrics
from lit_gans.callbacks.gradient_norm import GradientNormMonitor
from lit_gans.callbacks.guard.core import TrainingDiverged
from lit_gans.callbacks.plateau import StopOnPlateau
from lit_gans.callbacks.progress import GameProgressBar
from lit_gans.callbacks.replicas import ReplicaCheck
from lit_gans.callbacks.run import BestCheckpoint, LastCheckpoint, SaveConfig
from lit_gans.callbacks.samples import SampleGrid
from lit_gans.callbacks.signals import StopOnSignal

__all__ = (
    "BalanceReport",
    "BestCheckpoint",
    "CollapseDetector",
    "ExplosionDetector",
    "GameProgressBar",
    "GenerativeMetrics",
    "GradientNormMonitor",
    "LastCheckpoint",
    "ReplicaCheck",
    "SampleGrid",
    "SaveConfig",
    "StopOnPlateau",
    "StopOnSignal",
    "TrainingDiverged",
)

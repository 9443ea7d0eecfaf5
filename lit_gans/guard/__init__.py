"""All that watches training and recovers: detectors find, one guard acts. Each is of use to any LightningModule."""

from lit_gans.guard.balance import BalanceReport
from lit_gans.guard.collapse import CollapseDetector
from lit_gans.guard.explosion import ExplosionDetector
from lit_gans.guard.gradient_norm import GradientNormMonitor
from lit_gans.guard.guard import Guard, TrainingDiverged

__all__ = (
    "BalanceReport",
    "CollapseDetector",
    "ExplosionDetector",
    "GradientNormMonitor",
    "Guard",
    "TrainingDiverged",
)

"""All that a run leaves behind and goes on from: its folder, checkpoints, config and logs; how it ends at a signal."""

from lit_gans.runs.checkpoint_files import CheckpointError, SafeCheckpointIO
from lit_gans.runs.checkpoints import BestCheckpoint, LastCheckpoint, SaveConfig
from lit_gans.runs.loggers import AppendingCSVLogger, PatientTensorBoardLogger
from lit_gans.runs.logs import LogPosition
from lit_gans.runs.signals import StopOnSignal
from lit_gans.runs.trust import UntrustedError

__all__ = (
    "AppendingCSVLogger",
    "BestCheckpoint",
    "CheckpointError",
    "LastCheckpoint",
    "LogPosition",
    "PatientTensorBoardLogger",
    "SafeCheckpointIO",
    "SaveConfig",
    "StopOnSignal",
    "UntrustedError",
)

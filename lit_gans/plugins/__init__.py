"""What Lightning calls plugins: how checkpoints reach the disk, and logs that go on."""

from lit_gans.plugins.checkpoint_io import CheckpointError, SafeCheckpointIO, newest_whole, read, use_safe_io
from lit_gans.plugins.loggers import AppendingCSVLogger, PatientTensorBoardLogger

__all__ = (
    "AppendingCSVLogger",
    "CheckpointError",
    "PatientTensorBoardLogger",
    "SafeCheckpointIO",
    "newest_whole",
    "read",
    "use_safe_io",
)

"""What Lightning calls plugins: how checkpoints reach the disk, and logs that go on."""

from lit_gans.plugins.checkpoint_io import (
    CheckpointError,
    SafeCheckpointIO,
    checkpoint_in,
    newest_whole,
    read,
    use_safe_io,
)
from lit_gans.plugins.loggers import AppendingCSVLogger, PatientTensorBoardLogger
from lit_gans.plugins.trust import UntrustedError

__all__ = (
    "AppendingCSVLogger",
    "CheckpointError",
    "PatientTensorBoardLogger",
    "SafeCheckpointIO",
    "UntrustedError",
    "checkpoint_in",
    "newest_whole",
    "read",
    "use_safe_io",
)

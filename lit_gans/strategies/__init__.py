"""Training on several processes, for any LightningModule in manual optimisation: ``Trainer(strategy="gan_ddp")``."""

from lit_gans.strategies.gan_ddp import GANDDPStrategy
from lit_gans.strategies.sync_batchnorm import BatchNormSync, SyncBatchNorm

__all__ = ("BatchNormSync", "GANDDPStrategy", "SyncBatchNorm")

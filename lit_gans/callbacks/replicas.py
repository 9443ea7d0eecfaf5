"""Are the replicas of distributed training still equal?"""

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Tensor

__all__ = ("ReplicaCheck",)

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


def checksum(parameter: Tensor) -> Tensor:
    """An int64 scalar that changes with any bit, and with the order, of the tensor's values."""
    values = parameter.detach().flatten()
    bits = values.view(_INTEGERS.get(values.element_size(), torch.int64)).long()
    return (bits * torch.arange(1, 2 * len(bits), 2, device=bits.device)).sum()  # odd factors lose no bit modulo 2**64


class ReplicaCheck(Callback):
    """Stops training when the ranks' parameters are no longer the same bit by bit.

    Averaging of gradients can fail without any error: each rank then trains a network of its own and the checkpoint is
    rank 0's. This costs one small gather; with one process it does nothing. It works with any LightningModule. Buffers,
    such as the statistics of batch normalisation, may differ between ranks and are not compared.

    Args:
        every_n_epochs: How often to compare, at the end of the epoch.

    Raises:
        ValueError: ``every_n_epochs`` is less than 1.
        TypeError: The strategy shards parameters, so that there are no replicas.
        RuntimeError: Parameters differ; names the first of them and the ranks.

    >>> from lightning import Trainer
    >>> trainer = Trainer(callbacks=[ReplicaCheck()], strategy="ddp", accelerator="cpu", logger=False)
    """

    def __init__(self, every_n_epochs: int = 1) -> None:
        if every_n_epochs < 1:
            raise ValueError(f"every_n_epochs={every_n_epochs} must be at least 1.")
        self.every_n_epochs = every_n_epochs

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses strategies without replicas."""
        if isinstance(trainer.strategy, DeepSpeedStrategy | FSDPStrategy | ModelParallelStrategy):
            raise TypeError(f"{type(trainer.strategy).__name__} has no replicas to compare: leave ReplicaCheck out.")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compares the ranks, on all of them alike."""
        parameters = dict(pl_module.named_parameters())
        if trainer.world_size == 1 or not parameters or (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        mine = torch.stack([checksum(parameter) for parameter in parameters.values()])
        ranks: Tensor = pl_module.all_gather(mine)  # type: ignore[assignment]  # (world size, number of parameters)
        differs = ranks.ne(ranks[0])
        if not differs.any():
            return
        names = [name for name, bad in zip(parameters, differs.any(0).tolist(), strict=True) if bad]
        others = differs.any(1).nonzero().flatten().tolist()
        raise RuntimeError(
            f"After epoch {trainer.current_epoch} the replicas differ in {len(names)} of {len(parameters)} parameters, "
            f"first in {names[0]!r}: rank {', '.join(map(str, others))} against rank 0. Usual causes: loss.backward() "
            "instead of self.manual_backward(loss); parameters frozen when training began and unfrozen later; layers "
            "added after setup(); an update that only some ranks made."
        )

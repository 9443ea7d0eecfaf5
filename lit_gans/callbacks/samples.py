"""Pictures of what the generator has learned so far."""

import math
from pathlib import Path

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from lit_gans.functional import to_uint8
from lit_gans.models import GAN

__all__ = ("SampleGrid",)


class SampleGrid(Callback):
    """Draws the same latents again and again as training goes on.

    Each grid becomes a PNG file, and an image ``samples`` in the W&B and TensorBoard loggers of the trainer, on the
    step axis of the metrics. Rank zero draws; training is not disturbed: random numbers, modes and gradients are left
    alone, and a file that cannot be written is a warning.

    Works with any LightningModule that has ``sample(n)`` → images ``(n, C, H, W)`` in [-1, 1]; latents are then fixed
    by seeding torch around the call. A ``lit_gans.models.GAN`` gets ``seed`` and ``ema`` as arguments and, if
    conditional, all classes in turn, one a column. Of images neither grey nor RGB the first channels are shown.

    Args:
        n: Number of images.
        every_n_steps: Number of training batches between two grids; the end of training always gets one.
        seed: Fixes the latents.
        ema: Whether to draw with the averaged generator, where there is one.
        nrow: Images in a row; if left out, one a class, or as many as make a square.
        dirpath: Folder of the files; if left out, ``samples`` in the run's folder (of the first logger, else of the
            trainer).

    Raises:
        ValueError: ``n``, ``every_n_steps`` or ``nrow`` is less than 1, or ``sample`` returned another shape.
        TypeError: The module has no ``sample``.

    >>> from lightning import Trainer
    >>> trainer = Trainer(callbacks=[SampleGrid(n=16, every_n_steps=100)], accelerator="cpu", logger=False)
    """

    def __init__(
        self,
        n: int = 64,
        every_n_steps: int = 500,
        seed: int = 0,
        ema: bool = True,
        nrow: int | None = None,
        dirpath: str | Path | None = None,
    ) -> None:
        if min(n, every_n_steps, nrow or 1) < 1 or nrow == 0:
            raise ValueError(f"n={n}, every_n_steps={every_n_steps} and nrow={nrow} must be at least 1.")
        self.n, self.every_n_steps, self.seed, self.ema, self.nrow, self.dirpath = (
            n,
            every_n_steps,
            seed,
            ema,
            nrow,
            dirpath,
        )
        self._drawn = 0  # number of batches behind the latest grid

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Looks for ``sample`` before anything is trained, and finds the folder, which takes all ranks."""
        if stage == "fit" and not callable(getattr(pl_module, "sample", None)):
            raise TypeError(
                f"SampleGrid draws with module.sample(n), which {type(pl_module).__name__} lacks: "
                "define it to return images of shape (n, C, H, W) in [-1, 1]."
            )
        self._folder = Path(self.dirpath or Path(trainer.log_dir or trainer.default_root_dir, "samples"))
        self._drawn = 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Draws when the number of batches is a multiple of ``every_n_steps``."""
        loop = trainer.fit_loop.epoch_loop
        batches = loop._batches_that_stepped + 1  # counted after this hook
        if batches % self.every_n_steps == 0 and not loop._should_accumulate():
            self.draw(trainer, pl_module, batches)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the last grid."""
        if (batches := trainer.fit_loop.epoch_loop._batches_that_stepped) > self._drawn:
            self.draw(trainer, pl_module, batches)

    def draw(self, trainer: Trainer, pl_module: LightningModule, batches: int) -> None:
        """Draws one grid and hands it to the loggers and to a file, on rank zero.

        Args:
            trainer: Whose loggers get the grid.
            pl_module: What draws it.
            batches: Number of batches trained so far; metrics of the last of them carry the step ``batches - 1``.
        """
        self._drawn = batches
        if not trainer.is_global_zero:
            return
        grid = self.grid(pl_module)
        image = to_pil_image(grid)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image("samples", [image], step=batches - 1)
            elif isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("samples", grid, batches - 1)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        path = self._folder / f"step-{batches:08d}.png"
        half = path.with_suffix(".tmp")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            image.save(half, format="PNG")
            half.replace(path)
        except OSError as error:
            half.unlink(missing_ok=True)
            rank_zero_warn(f"{path} could not be written ({error}); training goes on.")

    @torch.no_grad()
    def grid(self, pl_module: LightningModule) -> Tensor:
        """Samples side by side, uint8 of shape ``(3, H, W)`` on the CPU."""
        modes = [(module, module.training) for module in pl_module.modules()]
        columns = math.ceil(math.sqrt(self.n))
        with isolate_rng():
            torch.manual_seed(self.seed)
            pl_module.eval()
            try:
                if isinstance(pl_module, GAN):
                    y = None
                    if classes := pl_module.num_classes:
                        y = torch.arange(self.n, device=pl_module.device) % classes
                        columns = classes if classes <= self.n else columns
                    images = pl_module.sample(self.n, y=y, seed=self.seed, ema=self.ema)
                else:
                    images = pl_module.sample(self.n)  # type: ignore[operator]
            finally:
                for module, mode in modes:
                    module.training = mode
        if images.ndim != 4 or len(images) != self.n:
            raise ValueError(
                f"sample({self.n}) returned shape {tuple(images.shape)}; ({self.n}, C, H, W) was expected."
            )
        shown = to_uint8(images[:, : 3 if images.shape[1] >= 3 else 1])
        return make_grid(shown, nrow=self.nrow or columns).cpu()

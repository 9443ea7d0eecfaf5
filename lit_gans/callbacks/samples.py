"""Pictures of what the generator has learned so far."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from lit_gans.callbacks.pairs import comparison, example_pairs
from lit_gans.files import aside
from lit_gans.functional import to_uint8
from lit_gans.internals import accumulates, batches_done
from lit_gans.models import GAN, Translation
from lit_gans.modules import eval_mode

__all__ = ("SampleGrid", "mosaic", "scatter")

_PAIRS = 16  # of pictures and what is made of them, at most
_LEGIBLE = 64  # pixels to which smaller images are magnified

DOT = (214, 39, 40)
"""Colour of a generated point, red."""

AXIS = 225
"""Grey of the axes, of 255."""


class SampleGrid(Callback):
    """Draws the same latents again and again as training goes on.

    Each grid becomes a PNG file, and an image ``samples`` in the W&B and TensorBoard loggers of the trainer, on the
    step axis of the metrics. Rank zero draws; training is not disturbed: random numbers, modes and gradients are left
    alone, and a file that cannot be written is a warning.

    Works with any LightningModule that has ``sample(n)`` → images ``(n, C, H, W)`` in [-1, 1], or points ``(n, 2)``,
    which are drawn over the density of the data; latents are then fixed by seeding torch around the call. A
    ``lit_gans.models.GAN`` gets ``seed`` and ``ema`` as arguments and, if conditional, all classes in turn, one a
    column. A model of pictures from pictures shows up to 16 held-out pairs: the source, what is made of it, and the
    target, or the way back where there are no pairs. Images of less than 64 pixels are magnified by a whole factor. Of
    images neither grey nor RGB the first channels are shown.

    Args:
        n: Number of images or points; of a conditional model only as many as fill whole rows.
        every_n_steps: Number of training batches between two grids; the end of training always gets one.
        seed: Seed of the latents: the same seed shows the same latents throughout the run.
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
        batches = batches_done(trainer) + 1  # counted after this hook
        if batches % self.every_n_steps == 0 and not accumulates(trainer):
            self.draw(trainer, pl_module, batches)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the last grid."""
        if (batches := batches_done(trainer)) > self._drawn:
            self.draw(trainer, pl_module, batches)

    def draw(self, trainer: Trainer, pl_module: LightningModule, batches: int) -> None:
        """Draws one grid and hands it to the loggers and to a file, on rank zero.

        Args:
            trainer: Whose loggers get the grid.
            pl_module: The module whose samples are drawn.
            batches: Number of batches trained so far; metrics of the last of them carry the step ``batches - 1``.
        """
        self._drawn = batches
        if not trainer.is_global_zero:
            return
        grid = self.grid(pl_module, trainer)
        image = to_pil_image(grid)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image("samples", [image], step=batches - 1)
            elif isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("samples", grid, batches - 1)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        path = self._folder / f"step-{batches:08d}.png"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with aside(path) as half:
                image.save(half, format="PNG")
        except OSError as error:
            rank_zero_warn(f"{path} could not be written ({error}); training goes on.")

    @torch.no_grad()
    def grid(self, pl_module: LightningModule, trainer: Trainer | None = None) -> Tensor:
        """Samples side by side, uint8 of shape ``(3, H, W)`` on the CPU; points over those of the trainer's data."""
        n, columns = self.n, self.nrow
        if isinstance(pl_module, Translation):
            with isolate_rng():
                pairs = example_pairs(pl_module, trainer, min(n, _PAIRS))
                shown = comparison(pl_module, pairs, self.seed, self.ema)
            across = len(shown) // (len(pairs) * len(pl_module.directions))  # pictures that belong together
            return mosaic(torch.stack(shown), across * (columns or (1 if across * shown[0].shape[2] > 256 else 4)))
        with isolate_rng(), eval_mode(pl_module):
            torch.manual_seed(self.seed)
            if isinstance(pl_module, GAN):
                y = None
                if classes := pl_module.num_classes:
                    if columns is None and classes <= n:
                        columns, n = classes, n - n % classes
                    y = torch.arange(n, device=pl_module.device) % classes
                images = pl_module.sample(n, y=y, seed=self.seed, ema=self.ema)
            else:
                images = pl_module.sample(n)  # type: ignore[operator]
        if images.shape == (n, 2):
            return scatter(images, *plane(trainer))
        if images.ndim != 4 or len(images) != n:
            raise ValueError(
                f"sample({n}) returned shape {tuple(images.shape)}; ({n}, C, H, W) was expected, "
                f"or ({n}, 2) for points."
            )
        return mosaic(to_uint8(images[:, : 3 if images.shape[1] >= 3 else 1]), columns).cpu()


def mosaic(images: Tensor, columns: int | None = None) -> Tensor:
    """Images side by side for people to look at: small ones magnified by a whole factor, rows whole where they can be.

    Args:
        images: uint8 (N, 1 or 3, H, W).
        columns: Images in a row; if left out, as many as make whole rows of a picture that is nearly square.

    Returns:
        uint8 (3, H', W') with a border of 2 pixels about each image.

    Example:
        >>> mosaic(torch.zeros(6, 1, 8, 8, dtype=torch.uint8)).shape
        torch.Size([3, 134, 200])
    """
    factor = max(1, _LEGIBLE // max(images.shape[2:]))
    shown = images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    return make_grid(shown, nrow=columns or whole_rows(len(images)), padding=2)


def whole_rows(n: int) -> int:
    """How many of n images go into a row: a divisor of n, if it is at most twice the number of rows, else √n."""
    square = math.ceil(math.sqrt(n))
    return next((columns for columns in range(square, 2 * square) if n % columns == 0), square)


def plane(trainer: Trainer | None, most: int = 20_000) -> tuple[Tensor | None, Tensor | None]:
    """Points (M, 2) of the trainer's data module, and the centres (K, 2) they lie about; None where there are none."""
    data: Any = getattr(trainer, "datamodule", None)
    mixture = getattr(data, "mixture", None)
    if mixture is None:
        return None, None
    source = data.source("train")
    return source.images(torch.arange(min(most, len(source)))), mixture.centers


def scatter(points: Tensor, data: Tensor | None = None, centers: Tensor | None = None, size: int = 512) -> Tensor:
    """A picture of points, in red, over the density of others, in grey; the second coordinate points upwards.

    Light lines mark the axes, with a notch at each whole number, where the picture shows them.

    Args:
        points: (N, 2); those beyond the picture are drawn at its edge, those that are not finite left out.
        data: (M, 2), all of which the picture shows; if left out, it shows all of ``points``.
        centers: (K, 2), of the modes; each gets a black cross on top of all else.
        size: Height and width in pixels.

    Returns:
        uint8 (3, size, size) on the CPU.

    Example:
        >>> picture = scatter(torch.tensor([[0.0, 1.0]]), torch.tensor([[-1.0, -1.0], [1.0, 1.0]]), size=64)
        >>> picture.shape, picture[:, 5, 32].tolist(), picture[:, 40, 20].tolist()
        (torch.Size([3, 64, 64]), [214, 39, 40], [255, 255, 255])
    """
    points = points.detach().cpu().double()
    points = points[points.isfinite().all(1)]
    shown = points if data is None else data.double()
    low, high = (shown.amin(0), shown.amax(0)) if len(shown) else (torch.zeros(2), torch.zeros(2))
    middle, reach = (low + high) / 2, ((high - low).max() / 2 * 1.2).clamp_min(1e-6)

    def pixels(where: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and columns of points, (N,) each; those beyond the picture have numbers beyond it."""
        column, row = (((where - middle) / reach * where.new_tensor([1, -1]) + 1) / 2 * size).floor().T
        return row, column

    def count(where: Tensor) -> Tensor:
        """Points in each pixel, (size, size)."""
        row, column = (place.clamp(0, size - 1).long() for place in pixels(where))
        return torch.bincount(row * size + column, minlength=size**2).view(size, size).float()

    picture = torch.full((size, size), 255.0)
    if data is not None:
        density = count(shown)
        picture -= 160 * (density / density.max().clamp_min(1)).sqrt()
    picture[axes(pixels, middle, float(reach), size)] = AXIS
    dots = F.max_pool2d(count(points)[None], 3, stride=1, padding=1) > 0
    picture = torch.where(dots, torch.tensor(DOT).view(3, 1, 1), picture)
    if centers is not None:
        picture[:, crosses(*pixels(centers.double()), size, arm=4)] = 0
    return picture.to(torch.uint8)


def axes(pixels: Callable[[Tensor], tuple[Tensor, Tensor]], middle: Tensor, reach: float, size: int) -> Tensor:
    """The pixels of both axes, and of notches at their whole numbers where these lie 8 pixels apart; bool (size, size).

    Args:
        pixels: Maps points (N, 2) to rows and columns.
        middle: The point in the middle of the picture, (2,).
        reach: How far the picture goes from there, up, down, left and right.
        size: Height and width of the picture.
    """
    furthest = math.ceil(reach + float(middle.abs().max()))
    numbers = torch.arange(-furthest, furthest + 1) if reach <= size / 16 else torch.zeros(1)
    along = torch.stack([numbers, torch.zeros_like(numbers)], 1).double()
    lines = crosses(*pixels(along), size, arm=3) | crosses(*pixels(along.flip(1)), size, arm=3)
    row, column = pixels(torch.zeros(1, 2, dtype=torch.float64))
    lines |= (torch.arange(size) == row)[:, None] | (torch.arange(size) == column)
    return lines


def crosses(row: Tensor, column: Tensor, size: int, arm: int) -> Tensor:
    """The pixels of upright crosses at rows and columns (N,), with arms of that many pixels; bool (size, size)."""
    vertical, horizontal = ((torch.arange(size) - place[:, None]).abs() for place in (row, column))  # (N, size)
    upright = (vertical <= arm)[:, :, None] & (horizontal == 0)[:, None]
    return (upright | ((vertical == 0)[:, :, None] & (horizontal <= arm)[:, None])).any(0)

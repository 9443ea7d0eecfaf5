"""FID and its kin while training, in the validation loop, where checkpoints can be chosen by them."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, cast

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from lit_gans.internals import batches_done, validation_source
from lit_gans.metrics.drawing import measured_network, model_sampler, standing_statistics
from lit_gans.metrics.evaluation import METRICS, Evaluation, Result, check_metrics, higher_is_better
from lit_gans.metrics.extractors import FeatureExtractor, load_extractor, usual_extractor
from lit_gans.metrics.modes import modes_of
from lit_gans.metrics.protocol import Protocol, load_protocol
from lit_gans.metrics.reals import real_images
from lit_gans.metrics.reference import RealImages, Reference, real_statistics
from lit_gans.metrics.translation import (
    PICTURE_METRICS,
    PICTURE_PROTOCOLS,
    PictureEvaluation,
    PictureProtocol,
    load_picture_protocol,
)
from lit_gans.models import Translation

__all__ = ("GenerativeMetrics",)


class GenerativeMetrics(Callback):
    """Measures the generator in each validation, and logs ``val/fid`` (``val/fd_<extractor>``), ``val/is`` and so on.

    Values are there before checkpoints are chosen, so ``ModelCheckpoint(monitor="val/fid")`` keeps the state that was
    measured. Training goes on as if nothing had happened: random numbers, modes and gradients are left alone. Each
    result's protocol is logged as a hyper-parameter, and saved with the values in checkpoints, under
    ``lit_gans_metrics``. At the end of training best and last values are told.

    Works with any LightningModule that has ``sample(n)`` → images (n, C, H, W) in [-1, 1], in any Trainer. A module
    without validation gets one for this callback alone. Real images are those of an ``ImageDataModule``, else the data
    set of the training loader.

    Of a model of pictures from pictures it measures what is made of held-out sources, or of the training ones where
    none are held out: ``psnr``, ``ssim``, ``l1``, ``lpips``, ``fd`` with pairs, ``fd`` and ``cycle`` without; see
    ``lit_gans.metrics.PICTURE_METRICS``, and ``PICTURE_PROTOCOLS`` for its protocols.

    Args:
        metrics: Of ``fd``, ``is``, ``kid``, ``pr``, ``classes``, ``mmd``, ``fd_infinity``; and ``modes``, which logs
            ``val/modes``, ``val/reverse_kl`` and, of points, ``val/high_quality``, on the data sets ``ring``, ``grid``,
            ``spiral`` and ``stacked_mnist``, and alone needs neither an extractor nor real images.
        extractor: What looks at the images, see ``lit_gans.metrics.load_extractor``; None takes the classifier of its
            own for ``digits`` and ``mnist``, else ``inception``.
        protocol: A preset of ``lit_gans.metrics.PROTOCOLS`` or ``PICTURE_PROTOCOLS`` by name, or a protocol.
        every_n_steps: Validate, and measure, each so many training batches; None leaves that to the Trainer.
        ema: Whether to measure the averaged generator, where there is one.
        sample: ``sample(module, n)`` → images, in place of the module's method.
        reals: The real images, in place of the training data: a data set or a tensor.

    Raises:
        ValueError: An argument is out of range; before training, if data or extractor do not allow what is asked for.
        FileNotFoundError: Before training, if the extractor's weights are nowhere.
        TypeError: Before training, if there is no ``sample``, or no real images.

    >>> from lightning import Trainer
    >>> callback = GenerativeMetrics(["fd", "classes"], extractor="digits", every_n_steps=500)
    >>> trainer = Trainer(callbacks=[callback], accelerator="cpu", logger=False)
    """

    def __init__(
        self,
        metrics: Sequence[str] = ("fd",),
        extractor: str | nn.Module | FeatureExtractor | None = None,
        protocol: str | Protocol | PictureProtocol = "quick",
        every_n_steps: int | None = None,
        ema: bool = True,
        sample: Callable[[LightningModule, int], Tensor] | None = None,
        reals: Any = None,
    ) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"every_n_steps must be at least 1, got {every_n_steps}")
        of_pictures = bool(set(metrics) & (PICTURE_METRICS.keys() - METRICS.keys()))
        self.metrics, self.extractor = tuple(metrics) if of_pictures else check_metrics(metrics), extractor
        pictures = isinstance(protocol, PictureProtocol) or protocol in PICTURE_PROTOCOLS
        self.picture_protocol = load_picture_protocol(protocol) if pictures else None
        self.protocol = load_protocol("quick" if pictures else protocol)  # type: ignore[arg-type]
        if not ema:
            self.protocol = self.protocol.changed(ema=False)
            self.picture_protocol = self.picture_protocol and self.picture_protocol.changed(ema=False)
        self.every_n_steps, self.sample, self.reals = every_n_steps, sample, reals
        self.history: list[tuple[int, dict[str, float]]] = []
        """Steps and values so far."""
        self.result: Result | None = None
        """The latest, with its stamp."""
        self._reference: Reference | None = None
        self._evaluation: Evaluation | None = None
        self._pictures: PictureEvaluation | None = None  # in its place, of a model of pictures from pictures
        self._lent: list[tuple[Any, str]] = []

    @property
    def best(self) -> dict[str, tuple[int, float]]:
        """For each value, the step at which it was best, and that value; NaN is never best."""
        found: dict[str, tuple[int, float]] = {}
        for step, values in self.history:
            for key, value in values.items():
                sign = -1 if higher_is_better(key) else 1
                if not math.isnan(value) and (key not in found or sign * value < sign * found[key][1]):
                    found[key] = (step, value)
        return found

    @property
    def last(self) -> dict[str, float]:
        """The latest values."""
        return self.history[-1][1] if self.history else {}

    # before training

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look for all that is needed: extractor, samples, real images, and a validation to work in."""
        if stage not in ("fit", "validate"):
            return
        if isinstance(pl_module, Translation):
            self._pictures = self._picture_evaluation(trainer, pl_module)
        else:
            self._look_for_samples(trainer, pl_module)
        if stage == "fit":
            self.history, self.result = [], None
            self._check_monitors(trainer)
            self._arrange_validation(trainer, pl_module)

    def _picture_evaluation(self, trainer: Trainer, module: Translation) -> PictureEvaluation:
        """What measures pictures from pictures."""
        data: Any = getattr(trainer, "datamodule", None)
        if not hasattr(data, "pairs"):
            raise TypeError(
                f"GenerativeMetrics finds no pictures for {type(module).__name__} to translate: train with a data "
                "module of pairs, PairedImageDataModule or UnpairedImageDataModule"
            )
        extractor = None
        if {"fd", "fid"} & set(self.metrics):
            extractor = load_extractor(self.extractor or usual_extractor(getattr(data, "dataset", None)))
        protocol = self.picture_protocol or load_picture_protocol(self.protocol)
        if data.pairs(protocol.split) is None:
            protocol = protocol.changed(split="train")
        return PictureEvaluation(self.metrics, protocol, extractor, module.paired, module.directions)

    def _look_for_samples(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What measures samples, and whether all is there that it needs."""
        data: Any = getattr(trainer, "datamodule", None)
        looking = self.metrics != ("modes",) and getattr(data, "mixture", None) is None
        extractor = self.extractor or usual_extractor(getattr(data, "dataset", None))
        self._evaluation = Evaluation(
            self.metrics, load_extractor(extractor) if looking else None, self.protocol, modes=modes_of(data)
        )
        model_sampler(pl_module, self.protocol, 0, self.sample)
        with standing_statistics(pl_module, self.protocol.changed(standing=min(1, self.protocol.standing))):
            pass
        if self._evaluation.extractor is not None and (self.reals is not None or hasattr(data, "source")):
            self._evaluation.check(len(self._open_reals(trainer)))

    def _check_monitors(self, trainer: Trainer) -> None:
        """Refuse a monitor of a distance that goes by another name, or of the wrong direction."""
        key = f"val/{self._checked().key if self._pictures is None else self._pictures.key}"
        if self._pictures is not None and self._pictures.extractor is not None:
            key = f"val/{self._pictures.extractor.key}"
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            monitor = str(getattr(callback, "monitor", None))
            if re.fullmatch(r"val/(fid|fd_.*)", monitor) and monitor not in (key, f"{key}_infinity"):
                raise ValueError(f"{type(callback).__name__} monitors {monitor}, but what is measured is called {key}")
            higher = higher_is_better(monitor)
            mode = "max" if higher else "min"
            if monitor.startswith("val/") and higher is not None and getattr(callback, "mode", mode) != mode:
                raise ValueError(f"{type(callback).__name__} monitors {monitor}, of which mode={mode!r} is the better")

    def _arrange_validation(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set how often to validate, and see to it that validation happens at all."""
        if trainer.limit_val_batches == 0:
            raise ValueError("GenerativeMetrics works in the validation loop, which limit_val_batches=0 switches off")
        if self.every_n_steps is not None:
            before = trainer.check_val_every_n_epoch, trainer.val_check_interval
            if before != (None, self.every_n_steps):
                rank_zero_info(f"GenerativeMetrics: validation every {self.every_n_steps} training batches")
            trainer.check_val_every_n_epoch = None
            trainer.val_check_interval = self.every_n_steps
        source = validation_source(trainer)
        owner: Any = source.instance if source.is_module() else None
        if owner is not None and (not source.is_defined() or not owner.val_dataloader()):
            self._lend(owner, "val_dataloader", lambda: DataLoader([0], generator=torch.Generator()))  # type: ignore[arg-type]
            self._lend(pl_module, "validation_step", lambda *_: None)
        elif not trainer.enable_validation:  # loaders without a step
            self._lend(pl_module, "validation_step", lambda *_: None)

    def _lend(self, owner: Any, name: str, method: Callable[..., Any]) -> None:
        """Give a method to one that lacks it, until ``teardown``."""
        setattr(owner, name, method)
        self._lent.append((owner, name))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take back what was lent; ``teardown`` is not called then."""
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take back what was lent, and free the memory."""
        for owner, name in self._lent:
            delattr(owner, name)
        self._lent, self._reference = [], None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the real images, and log the protocol."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if self._pictures is None:
            self._prepare(trainer, pl_module)
        for logger in trainer.loggers:
            logger.log_hyperparams({"metrics_protocol": self._stamp(trainer, pl_module)})

    def _prepare(self, trainer: Trainer, pl_module: LightningModule) -> Reference | None:
        """Statistics of the real images, computed or read once a run; None where none are needed."""
        evaluation = self._checked()
        if self._reference is None and evaluation.extractor is not None:
            p = self.protocol
            reference = real_statistics(
                lambda: self._open_reals(trainer),
                evaluation.extractor,
                self._identity(trainer),
                p.mirror,
                p.reals,
                evaluation.needs_features,
                pl_module.device,
                self._progress(trainer),
            )
            evaluation.check(reference.moments.n)
            self._reference = reference.to(evaluation.place(pl_module.device))
        return self._reference

    def _open_reals(self, trainer: Trainer) -> RealImages:
        data: Any = getattr(trainer, "datamodule", None)
        if self.reals is not None:
            return real_images(self.reals)
        if hasattr(data, "source"):
            source = data.source(self.protocol.split)
            if source is None:
                raise ValueError(
                    f"the data has no {self.protocol.split} split, which the protocol takes real images of"
                )
            return real_images(source)
        dataset = getattr(trainer.train_dataloader, "dataset", None)
        if dataset is None or self.protocol.split != "train":
            raise TypeError(
                f"GenerativeMetrics finds no {self.protocol.split} images: give it some with reals=, "
                "or train with an ImageDataModule"
            )
        return real_images(dataset)

    def _identity(self, trainer: Trainer) -> dict[str, Any] | None:
        """What tells the real images from others; None where they cannot be told."""
        data: Any = getattr(trainer, "datamodule", None)
        described = self.reals is None and hasattr(data, "describe")
        return data.describe(self.protocol.split) if described else None

    def _checked(self) -> Evaluation:
        assert self._evaluation is not None, "setup was not called"
        return self._evaluation

    # measuring

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """See to it that the last state is validated, whatever the interval."""
        last_epoch = trainer.max_epochs not in (None, -1) and trainer.current_epoch + 1 >= (trainer.max_epochs or 0)
        if trainer.global_step == trainer.max_steps or (trainer.is_last_batch and last_epoch):
            trainer.should_stop = True

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure and log."""
        if not trainer.sanity_checking and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            values = self._measure(trainer, pl_module)
            pl_module.log_dict({f"val/{key}": value for key, value in values.items()}, sync_dist=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the last state, if training was stopped between validations, and tell best and last."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if not self.history or self.history[-1][0] != trainer.global_step:
            values = self._measure(trainer, pl_module)
            step = batches_done(trainer)
            for logger in trainer.loggers:
                logger.log_metrics({f"val/{key}": value for key, value in values.items()}, step=max(0, step - 1))
        best = self.best
        for key, value in self.last.items():
            if key in best and not key.endswith("_std"):
                step, good = best[key]
                rank_zero_info(f"val/{key}: best {good:.5g} at step {step}, last {value:.5g} at {trainer.global_step}")

    def _measure(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        """Values by name; NaN, with a warning, if the generator makes such."""
        try:
            result = self._seen(trainer, pl_module)
        except FloatingPointError as error:
            rank_zero_warn(f"step {trainer.global_step}: {error}")
            key = self._checked().key if self._pictures is None else self._pictures.key
            result = Result(dict.fromkeys(self.last, math.nan) or {key: math.nan})
        if self._evaluation is not None:
            self._evaluation.leave_device()
        result.protocol = self._stamp(trainer, pl_module)
        self.result = result
        self.history.append((trainer.global_step, result.metrics))
        return result.metrics

    def _seen(self, trainer: Trainer, pl_module: LightningModule) -> Result:
        """What is seen in samples, or in what is made of pictures."""
        if self._pictures is not None:
            assert isinstance(pl_module, Translation)
            data, p = cast("Any", trainer).datamodule, self._pictures.protocol
            translate = partial(translated, pl_module, p.seed, p.ema)
            return self._pictures.measure(translate, data.pairs(p.split), pl_module.device, self._progress(trainer))
        reference, evaluation = self._prepare(trainer, pl_module), self._checked()
        with torch.no_grad(), standing_statistics(pl_module, self.protocol):
            return evaluation.measure(
                lambda seed: model_sampler(pl_module, self.protocol, seed, self.sample),
                reference,
                pl_module.device,
                self._progress(trainer),
            )

    def _stamp(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """All that the values depend on."""
        if self._pictures is not None:
            pictures, p = cast("Any", trainer).datamodule, self._pictures.protocol
            averaged = measured_network(pl_module, p.ema)[1]
            return self._pictures.stamp(pictures.describe(p.split), averaged, len(pictures.pairs(p.split)))
        identity = self._identity(trainer) or {"dataset": "of the training loader" if self.reals is None else "given"}
        data = identity if self._reference is None else {**identity, "count": self._reference.moments.n}
        averaged = measured_network(pl_module, self.protocol.ema)[1]
        return self._checked().stamp(data, averaged, trainer.world_size)

    @staticmethod
    def _progress(trainer: Trainer) -> Callable[[Iterable[int], str], Iterable[int]]:
        shown = trainer.is_global_zero and trainer.progress_bar_callback is not None
        return lambda blocks, title: tqdm(blocks, title, leave=False, delay=1, disable=None if shown else True)

    # what is kept

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the latest values beside the weights, with the step they are of, and their protocol."""
        if self.result is not None:
            step, values = self.history[-1]
            key = "lit_gans_metrics"  # of a second such callback, with its extractor's name
            extractor = (self._checked() if self._pictures is None else self._pictures).extractor
            key += f"/{extractor.name if extractor else 'modes'}" if key in checkpoint else ""
            checkpoint[key] = {"step": step, "values": values, "protocol": self.result.protocol}

    @property
    def state_key(self) -> str:
        """Several such callbacks in one Trainer are told apart by what they measure."""
        extractor = self.extractor if isinstance(self.extractor, str | None) else type(self.extractor).__name__
        return self._generate_state_key(metrics=self.metrics, extractor=extractor, protocol=str(self.protocol))

    def state_dict(self) -> dict[str, Any]:
        """The history, so that best and last outlive a resume."""
        return {"history": [[step, values] for step, values in self.history]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the history."""
        self.history = [(step, values) for step, values in state_dict["history"]]


def translated(model: Translation, seed: int, ema: bool, x: Tensor, direction: str) -> Tensor:
    """What a model makes of pictures, of those of one size as many at a time as it is given."""
    like = next(model.parameters(), x)
    made = model.translate(x.to(like.dtype), seed=seed, ema=ema, direction=direction, batch_size=len(x))
    return made.float()

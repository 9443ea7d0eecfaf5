"""The quieter failures: saturation, collapse, oscillation, and a metric that has turned."""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from statistics import median
from typing import Any, ClassVar

from lightning import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from torch.optim import Optimizer

from lit_gans.guard.detector import Detector
from lit_gans.guard.health import Finding
from lit_gans.guard.look import Look, Sight, discriminator_of
from lit_gans.internals import accumulates
from lit_gans.metrics.evaluation import higher_is_better
from lit_gans.metrics.extractors import FeatureExtractor, load_extractor
from lit_gans.metrics.monitored import check_logged, read

__all__ = ("CollapseDetector",)


class CollapseDetector(Detector):
    """Finds failures that produce no NaN, such as collapse and saturation.

    Every ``every_n_steps`` steps it looks at the same ``n`` latents' images and at what the discriminator says of them
    and of as many real ones; on other steps it costs nothing. What it sees must last for ``looks`` looks:

    - ``dead``: the images are all alike, their mean distance below a hundredth of the data's, after ``warmup`` steps or
      where they differed before;
    - ``collapse``: their diversity (mean distance of two images, of one class where there are labels, over that of real
      ones) is below ``diversity`` times what it was, and below that of the data by as much; pixels are compared, or
      features, if an extractor is given;
    - ``mode_loss``: with an extractor that knows classes, the effective number of them (exponential of their entropy)
      is below ``diversity`` times what it was;
    - ``saturation``: the discriminator tells all real from generated images, and either the gap of its logits is more
      than ``gap`` times the usual, or its own or the generator's gradients have fallen below a twentieth of their
      highest median, so that little is left to learn from;
    - ``overpowered``: the discriminator is fooled, nine in ten pairs the wrong way round: the generator has overpowered
      it, or it is frozen;
    - ``oscillation``: the two take turns at that, four times within forty looks;
    - ``inversion``: what a model makes of pictures is dark where these are bright, and the data is not so;
    - ``unchanged``: a model of pictures without pairs gives its sources back as they are;
    - ``regression``: the monitored metric has become ``regression`` times worse than its best, twice in a row.

    The first three concern the generator, saturation the discriminator. Actions are those of ``ExplosionDetector`` that
    make sense here: ``warn``, ``rollback`` (to a state before it began; not for ``regression``, which is seen too late:
    ``action="rollback"`` leaves that at ``warn``) and ``stop``.

    Works with any LightningModule that has ``sample(n)`` → images (n, C, H, W) in [-1, 1], and ``discriminator(x)`` →
    logits, if the game is to be judged, too. A critic of unbounded scale (WGAN) is fine: only its own past counts.

    Args:
        action: What to do: one action for all kinds, or a mapping from kinds to actions.
        every_n_steps: Training steps between two looks.
        n: Images looked at, at least 8.
        looks: Looks in a row that count, at least 2.
        warmup: Steps before a usual state is known.
        diversity: Share, in (0, 1), of the usual diversity or number of classes, below which it counts as lost.
        gap: Factor, above 1, between the gap of the logits and the usual gap, from which on it counts as saturation.
        extractor: What ``lit_gans.metrics.load_extractor`` takes: ``digits``, ``mnist``, ``inception``, a module.
        monitor: Metric to watch; ``auto`` takes the Fréchet distance that ``GenerativeMetrics`` logs, if it does; None
            for none.
        mode: ``min`` if lower is better, ``max`` if higher; None asks the metric's name.
        regression: Factor, above 1, by which the monitored metric must be worse than its best.
        seed: Seed of the latents, which are the same at each look.

    Raises:
        ValueError: a number out of range, an unknown kind or action; while training, a ``monitor`` that nobody logs.
        TypeError: the module has no ``sample``.
        TrainingDiverged: while training, if it has to stop.

    Example:
        >>> CollapseDetector(action={"saturation": "rollback"}).actions["collapse"]
        'warn'
    """

    kinds: ClassVar[Mapping[str, str]] = {
        "dead": "warn",
        "collapse": "warn",
        "mode_loss": "warn",
        "saturation": "warn",
        "overpowered": "warn",
        "oscillation": "warn",
        "inversion": "warn",
        "unchanged": "warn",
        "regression": "warn",
    }
    possible = ("warn", "rollback", "stop")

    def __init__(
        self,
        action: str | dict[str, str] = "warn",
        every_n_steps: int = 25,
        n: int = 32,
        looks: int = 3,
        warmup: int = 500,
        diversity: float = 0.5,
        gap: float = 5.0,
        extractor: str | nn.Module | FeatureExtractor | None = None,
        monitor: str | None = "auto",
        mode: str | None = None,
        regression: float = 1.5,
        seed: int = 0,
    ) -> None:
        for name, value, least in (("every_n_steps", every_n_steps, 1), ("n", n, 8), ("looks", looks, 2)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if warmup < 0:
            raise ValueError(f"warmup must not be negative, got {warmup}")
        if not 0 < diversity < 1:
            raise ValueError(f"diversity must be above 0 and below 1, got {diversity}")
        for name, factor in (("gap", gap), ("regression", regression)):
            if not factor > 1:
                raise ValueError(f"{name} is a factor above 1, got {factor}")
        if mode not in (None, "min", "max"):
            raise ValueError(f"mode must be 'min' or 'max', got {mode!r}")
        if isinstance(action, str) and action == "rollback":
            action = {**dict.fromkeys(self.kinds, action), "regression": "warn"}
        elif not isinstance(action, str) and dict(action).get("regression") == "rollback":
            raise ValueError("regression is seen long after the last snapshot: use warn or stop, and best.ckpt")
        super().__init__(action)
        self.every_n_steps, self.n, self.looks, self.warmup, self.seed = every_n_steps, n, looks, warmup, seed
        self.diversity, self.gap, self.regression = diversity, gap, regression
        self.extractor, self.monitor, self.mode = extractor, monitor, mode
        self._sight: Sight | None = None
        self._forget()

    def _forget(self) -> None:
        """Begin anew."""
        self._seen: deque[dict[str, float]] = deque(maxlen=40)
        self._highest: dict[str, float] = {}
        self._orders: deque[float] = deque(maxlen=40)
        self._bad: dict[str, int] = {}
        self._values: list[float] = []
        self._norms: dict[str, float] = {}
        self._suspects = self._looked_for_monitor = False

    # what is needed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look for samples, a discriminator and an extractor."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        self._forget()
        if not callable(getattr(pl_module, "sample", None)):
            raise TypeError(
                f"CollapseDetector looks at module.sample(n), which {type(pl_module).__name__} lacks: define it to "
                "return images of shape (n, C, H, W) in [-1, 1]"
            )
        if discriminator_of(pl_module) is None:
            rank_zero_info(f"CollapseDetector: {type(pl_module).__name__} has no discriminator, only images are judged")
        extractor = None if self.extractor is None else load_extractor(self.extractor)
        self._sight = Sight(trainer.world_size, self.n, self.seed, extractor)

    @property
    def suspects(self) -> bool:
        """Whether the last look has found something that is to be acted on if it lasts."""
        return self._suspects

    def recall(self, state: None) -> None:
        """After a rollback, what was seen of the state that was given up no longer counts."""
        self._bad.clear()
        self._orders.clear()
        self._suspects = False

    # looking

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Drop what is given up; before a look, note how large the gradients are."""
        if not self.guard.passes_over(optimizer) and self.guard.is_due_soon(self.every_n_steps):
            reading = self.guard.reading(optimizer)
            self._norms[reading.player.name] = reading.values(trainer)[0]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look, if it is time, and act on what has lasted."""
        assert self._sight is not None, "setup was not called"
        self._sight.keep(pl_module, batch)
        if accumulates(trainer):
            return
        if self.guard.is_due(self.every_n_steps) and not self.guard.gave_up:
            finding = self._look(trainer, pl_module)
            self._norms.clear()
            if finding is not None:
                self.respond(trainer, pl_module, finding)
            self._look_for_monitor(trainer, validated=False)

    def _look(self, trainer: Trainer, module: LightningModule) -> Finding | None:
        """Judge what is seen now; the first kind that has lasted long enough."""
        assert self._sight is not None, "setup was not called"
        look = self._sight.look(module)
        seen = {name: getattr(look, name) for name in ("gap", "order", "diversity", "classes")}
        names = [player.name for player in self.guard.players]
        seen |= {f"norm/{name}": self._norms.get(name, math.nan) for name in names}
        self._orders.append(look.order)
        found = list(self._judge(look, seen))
        kinds = {finding.kind for finding in found}
        self._bad = {kind: self._bad.get(kind, 0) + 1 for kind in kinds}
        self._suspects = any(self.actions[finding.kind] != "warn" for finding in found)
        lasting = [finding for finding in found if self._bad[finding.kind] >= self.looks]
        if not found or any(self.actions[finding.kind] == "warn" for finding in lasting):
            self._remember(seen)
        worst = max(lasting, key=lambda finding: self.actions[finding.kind] != "warn", default=None)
        return None if worst is None else replace(worst, age=(self.looks + 1) * self.every_n_steps)

    def _remember(self, seen: dict[str, float]) -> None:
        """What is seen in health becomes usual."""
        self._seen.append(seen)
        if self._known:
            for name in seen:
                if name.startswith("norm/") and not math.isnan(usual := self._usual(name)):
                    self._highest[name] = max(usual, self._highest.get(name, 0.0))

    @property
    def _known(self) -> bool:
        """Whether there is a usual state."""
        return len(self._seen) >= 8 and self.guard.batch + 1 >= self.warmup

    def _usual(self, name: str) -> float:
        values = [seen[name] for seen in self._seen if not math.isnan(seen.get(name, math.nan))]
        return median(values) if values else math.nan

    def _judge(self, look: Look, seen: Mapping[str, float]) -> Iterator[Finding]:
        """What is wrong at this look."""
        usual = self._usual("diversity")
        generator, discriminator = self._roles()
        if not look.finite:
            advice = "The generator draws NaN or infinity: see what ExplosionDetector says."
            yield Finding("dead", generator, look.diversity, usual, "the diversity of the images", advice)
        elif look.diversity < 0.01:
            if self.guard.batch + 1 >= self.warmup or usual >= 0.05:
                advice = "The generator draws one image for all latents: look at its last layers and learning rate."
                yield Finding("dead", generator, look.diversity, usual, "the diversity of the images", advice)
        elif self._known and look.diversity < self.diversity * min(usual, 1.0):
            advice = (
                "Images become alike: give the discriminator a gradient penalty (R1), lower both learning rates, or "
                "enlarge the batch."
            )
            yield Finding("collapse", generator, look.diversity, usual, "the diversity of the images", advice)
        if self._known and look.classes < self.diversity * (classes := self._usual("classes")):
            advice = "Some classes are no longer drawn: the same remedies as for collapse, or labels for both networks."
            yield Finding("mode_loss", generator, look.classes, classes, "the effective number of classes", advice)
        if self._known:
            yield from self._balance(look, seen, generator, discriminator)
            yield from self._against_sources(look, generator)

    @staticmethod
    def _against_sources(look: Look, generator: str | None) -> Iterator[Finding]:
        """What is wrong with pictures beside their sources."""
        if look.likeness < -0.5:
            advice = "Bright becomes dark: begin anew with another seed, or with a larger identity_weight."
            quantity = "the correlation of pictures with their sources"
            yield Finding("inversion", generator, look.likeness, 1.0, quantity, advice)
        if look.change < 0.02:
            advice = (
                "Sources come back as they are: lower identity_weight or nce_weight, or strengthen the discriminator."
            )
            quantity = "the difference of pictures to their sources"
            yield Finding("unchanged", generator, look.change, 1.0, quantity, advice)

    def _balance(
        self, look: Look, seen: Mapping[str, float], generator: str | None, discriminator: str | None
    ) -> Iterator[Finding]:
        """Who wins, and by how much."""
        if look.order >= 0.99:
            advice = (
                "The discriminator has won: lower its learning rate, give it a gradient penalty (R1) or less capacity, "
                "or augment its images."
            )
            gap = self._usual("gap")
            faded = [
                (name, seen[name], highest) for name, highest in self._highest.items() if seen[name] < 0.05 * highest
            ]
            if look.gap > self.gap * max(gap, 0.1):
                yield Finding("saturation", discriminator, look.gap, gap, "the gap of its logits", advice)
            elif faded:
                name, norm, highest = faded[0]
                quantity = f"the gradient norm of {name.removeprefix('norm/')}"
                yield Finding("saturation", discriminator, norm, highest, quantity, advice)
        if look.order <= 0.1:
            advice = (
                "The discriminator is fooled throughout: if it is not frozen, raise its learning rate or capacity, or "
                "lower the generator's."
            )
            usual = self._usual("order")
            yield Finding("overpowered", generator, look.order, usual, "the share of pairs told apart", advice)
        turns, side = 0, 0
        for order in self._orders:
            now = 1 if order >= 0.9 else -1 if order <= 0.1 else 0
            turns += now == -side != 0
            side = now or side
        if turns >= 4:
            advice = "The players chase one another in circles: lower both learning rates, or add a gradient penalty."
            quantity = f"the number of turns of the lead in {self.every_n_steps * len(self._orders)} steps"
            yield Finding("oscillation", None, turns, None, quantity, advice)

    def _roles(self) -> tuple[str | None, str | None]:
        """The players' names, where they have the customary ones."""
        names = {player.name for player in self.guard.players}
        return tuple(name if name in names else None for name in ("generator", "discriminator"))  # type: ignore[return-value]

    # the monitored metric

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the metric with its best."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._look_for_monitor(trainer, validated=True)
        key = self._key(trainer)
        if key is None or key not in trainer.callback_metrics:
            return
        self._values.append(read(trainer, key))
        higher = self._higher_is_better(key)
        finite = [value for value in self._values if math.isfinite(value)]
        if len(self._values) < 4 or not finite or min(finite) <= 0:
            return
        best = max(finite) if higher else min(finite)
        worse = [value < best / self.regression if higher else value > best * self.regression for value in self._values]
        if all(worse[-2:]):
            advice = "Go back to the best checkpoint; train for less long, with lower learning rates or a penalty."
            finding = Finding("regression", None, self._values[-1], best, key, advice)
            if self.respond(trainer, pl_module, finding) != "warn":
                self._values.clear()

    def _key(self, trainer: Trainer) -> str | None:
        if self.monitor != "auto":
            return self.monitor
        known = [key for key in trainer.callback_metrics if key == "val/fid" or key.startswith("val/fd_")]
        return next((key for key in known if not key.endswith("_infinity")), None)

    def _higher_is_better(self, key: str) -> bool:
        return bool(higher_is_better(key)) if self.mode is None else self.mode == "max"

    def _look_for_monitor(self, trainer: Trainer, validated: bool) -> None:
        """Say once, early, that the monitored metric is not there.

        Raises:
            ValueError: naming it and the nearest that is there.
        """
        if self._looked_for_monitor or self.monitor in (None, "auto") or (trainer.enable_validation and not validated):
            return
        self._looked_for_monitor = True
        check_logged(trainer, self, str(self.monitor))

    # state

    def state_dict(self) -> dict[str, Any]:
        """The looks so far, as plain values for a checkpoint."""
        return {
            "seen": [dict(seen) for seen in self._seen],
            "highest": dict(self._highest),
            "orders": list(self._orders),
            "bad": dict(self._bad),
            "values": list(self._values),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        super().load_state_dict(state_dict)
        self._seen.clear()
        self._seen.extend(state_dict["seen"])
        self._orders.clear()
        self._orders.extend(state_dict["orders"])
        self._highest, self._bad = dict(state_dict["highest"]), dict(state_dict["bad"])
        self._values = list(state_dict["values"])

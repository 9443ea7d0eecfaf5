"""What surrounds the game: two networks, their optimizers, one source of noise, and what Lightning must be told."""

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias, cast

import torch
from lightning import Callback
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lit_gans.functional import Batch, update_average_
from lit_gans.game import checkpoint as checkpoints
from lit_gans.game.arguments import at_least, not_negative
from lit_gans.game.checkpoint import flatten, plain_arguments, statistics_of, write_back
from lit_gans.game.clipping import Clip, as_clip
from lit_gans.game.compiling import compile_networks, is_compiled, tell_whether_it_pays
from lit_gans.game.joint import joint_batch, mean_gradient
from lit_gans.game.layout import align_state, channels_last_pays, lay_out
from lit_gans.game.sampling import SamplingModule
from lit_gans.game.schedules import Schedule, check_schedules, follow_schedules
from lit_gans.game.traits import Traits
from lit_gans.internals import HOOK_NAME, logged_results, stays_on_cpu, trainer_of, uncounted
from lit_gans.modules import frozen
from lit_gans.preflight.agreement import check_ranks_agree
from lit_gans.preflight.checks import (
    check_batch,
    check_classes,
    check_flags,
    check_labels,
    check_precision,
    check_strategy,
    label_of,
    peek,
)
from lit_gans.preflight.compatibility import batch_size, check_compatibility
from lit_gans.preflight.pairs import check_pairs
from lit_gans.regularizers.regularizer import Regularizer
from lit_gans.runs.checkpoint_files import use_safe_io

__all__ = ("PLAYERS", "GameModule", "Player")

Player: TypeAlias = Literal["discriminator", "generator"]
_COMPILED_BY = 10  # steps; what is compiled by then is compared with what it was
PLAYERS: tuple[Player, Player] = ("discriminator", "generator")  # the order of their updates and optimizers


class GameModule(SamplingModule):
    """Two networks that play against each other; ``Game`` adds the rules.

    Args:
        generator: ``forward(z)`` or ``forward(z, y)``, z of shape (N, latent_dim) → images in [-1, 1].
        discriminator: ``forward(x)`` or ``forward(x, y)`` → logits (N,), (N, 1) or a patch map.
        latent_dim: Dimension of the latent vectors z.
        num_classes: Number of classes of a conditional model; None leaves labels aside.
        n_critic: The generator is updated at every n-th step, the discriminator at each.
        g_lr: Learning rate of the generator's default optimizer.
        d_lr: Learning rate of the discriminator's default optimizer.
        betas: Adam's decay rates, for both players.
        g_optimizer: Called with the generator's parameters; brings its own learning rate. None: the paper's optimizer.
        d_optimizer: The same for the discriminator.
        g_scheduler: Called with the generator's optimizer; stepped once per training step.
        d_scheduler: The same for the discriminator.
        g_clip: How the generator's gradients are clipped: NormClip, ValueClip, AdaptiveClip; a number is a norm.
        d_clip: The same for the discriminator.
        accumulate: Parts in which a batch is worked through; their gradients add up to those of the whole batch.
        g_batch: Generated images in an update of the generator, as a multiple of the batch; where its loss reads real
            images, too, those of the batch are repeated.
        ema_decay: Decay per generator update of the averaged generator ``g_ema``, 0.999 for example.
        ema_kimg: The same as a half-life in thousands of real images, whatever the batch size.
        ema_rampup: With ema_kimg: half-life at most this share of the images seen so far (0.05 in StyleGAN2-ADA).
        uniform_labels: Draw the labels of generated images uniformly, not from the batch.
        augment: Differentiable augmentation of all the discriminator sees, images → images.
        regularizers: Add-on penalties, each of which adds a term to its player's loss.
        schedules: How numbers change while training, such as the weight of a penalty; see ``Schedule``.
        compile: Compile both networks, and penalties that use ``slope``, when training begins;
            results and checkpoints stay the same. After ten steps the time of compiled passes is compared with that of
            eager ones, and told. Samples and validation stay eager, and so does, with a message, what torch cannot
            compile.
        channels_last: Train with images and convolutions in torch's channels_last memory format. "auto" does so where
            it is faster for layers of these kinds: on a CPU, unless few images meet small maps, and on a GPU in half
            precision, but not with instance norm or grouped convolutions. Results stay the same but for rounding, and a
            checkpoint goes on in the format it was written in. With true, networks must not ``view`` images, but
            ``flatten`` or ``reshape`` them.
        seed: Seed of all noise while training; if None, the seed given to ``seed_everything``, or 0.
    """

    augment: Any
    regularizers: Iterable[Regularizer]
    _first_look_due = False
    _steps_until_told = -1  # whether compilation pays; counts down where networks are compiled
    traits = Traits()  # what the engine must know of a paper
    _labels_unseen = False
    pack = 1  # samples the discriminator judges together
    resting: tuple[Player, ...] = ()  # who is not updated, as the discriminator in the first of two stages
    example: Batch | None = None  # the first batch, of a model of pictures from pictures
    begun = False  # whether the weights it begins with are those of another run
    together: bool | None = None  # whether it may be shown real and generated images in one pass; None: not looked yet
    turn: int | None = None  # which of its updates the player that plays is at; None: it does not learn
    lazily = False  # whether this update has a penalty that most have not
    batch_images = 0  # real images of this step's batch, over all ranks
    images_seen: int  # over all ranks, since training began
    measured: dict[str, Tensor]
    _optimizers_saved: list[str] | None = None  # of the checkpoint that is gone on from, until optimizers exist
    _buffers_of_rank: Tensor | None = None  # of that checkpoint, until the strategy is set up
    _pools_saved: Sequence[Mapping[str, Tensor]] = ()  # of that checkpoint, until the strategy is set up
    _left_out: Sequence[str] = ()  # arguments that have no form as plain values

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int = 128,
        num_classes: int | None = None,
        n_critic: int = 1,
        g_lr: float = 2e-4,
        d_lr: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        g_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
        d_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
        g_scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        d_scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        g_clip: float | Clip | None = None,
        d_clip: float | Clip | None = None,
        accumulate: int = 1,
        g_batch: int = 1,
        ema_decay: float | None = None,
        ema_kimg: float | None = None,
        ema_rampup: float | None = None,
        uniform_labels: bool = False,
        augment: nn.Module | Callable[[Tensor], Tensor] | None = None,
        regularizers: Sequence[Regularizer] | None = None,
        schedules: Sequence[Schedule] | None = None,
        compile: bool = False,
        channels_last: bool | Literal["auto"] = "auto",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        at_least(1, latent_dim=latent_dim, n_critic=n_critic, accumulate=accumulate, g_batch=g_batch)
        not_negative(g_lr=g_lr, d_lr=d_lr)
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, or None for a model without labels, got {num_classes}")
        if ema_decay is not None and not 0 <= ema_decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1), got {ema_decay}")
        if ema_decay is not None and ema_kimg is not None:
            raise ValueError("ema_decay and ema_kimg say the same thing in two ways: give one of them")
        if ema_kimg is not None and not ema_kimg > 0:
            raise ValueError(f"ema_kimg must be above 0, got {ema_kimg}")
        if ema_rampup is not None and ema_kimg is None:
            raise ValueError("ema_rampup ramps up ema_kimg: give that too")
        couples = [type(self).__name__] if self.traits.couples_samples else []
        couples += [type(penalty).__name__ for penalty in regularizers or () if penalty.couples_samples]
        if accumulate > 1 and couples:
            raise ValueError(
                f"accumulate={accumulate}: {couples[0]} compares the samples of a batch, so that its "
                "parts have another loss than the whole; use accumulate=1, and more processes for more memory"
            )
        if self.traits.needs_labels and num_classes is None:
            raise ValueError(f"{type(self).__name__} needs labels: give it num_classes, and data that has them")
        names = [penalty.name for penalty in regularizers or ()]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two loss terms are called {twice!r}: leave one out, or call a subclass otherwise")
        self.generator, self.discriminator = generator, discriminator
        self.latent_dim, self.num_classes, self.uniform_labels = latent_dim, num_classes, uniform_labels
        self.n_critic, self.accumulate, self.g_batch = n_critic, accumulate, g_batch
        self.lrs, self.betas = (d_lr, g_lr), (float(betas[0]), float(betas[1]))
        self.make_optimizers, self.make_schedulers = (d_optimizer, g_optimizer), (d_scheduler, g_scheduler)
        self.clips = (as_clip(d_clip), as_clip(g_clip))
        self.ema_decay, self.ema_kimg, self.ema_rampup = ema_decay, ema_kimg, ema_rampup
        if ema_decay is not None or ema_kimg is not None:
            self.g_ema = copy.deepcopy(generator).requires_grad_(False)
        self.augment = augment
        self.regularizers = nn.ModuleList(regularizers or ())  # type: ignore[assignment]
        self.schedules, self.scheduled = tuple(schedules or ()), dict[str, float]()
        self.measured = dict[str, Tensor]()  # what a paper watches besides its losses, logged as train/<name>
        self.compile_networks, self.channels_last, self.seed = compile, channels_last, seed
        self.laid_out = channels_last is True  # whether networks and images are in channels_last
        self.images_seen = 0

    @property
    def head_width(self) -> int | None:
        """Width of what the discriminator answers beside its logits, if the paper learns from it."""
        return None

    # optimizers

    def default_optimizer(self, parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
        """The paper's optimizer: Adam."""
        parameters = list(parameters)
        scaled = trainer_of(self) is not None and self.trainer.precision == "16-mixed"  # unscales before we could clip
        fused = not scaled and all(p.device.type in ("cpu", "cuda") for p in parameters)
        return Adam(parameters, lr=lr, betas=self.betas, fused=fused)

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        """Discriminator's, then generator's; a scheduler each where given."""
        optimizers, schedulers = [], []
        for index, name in enumerate(PLAYERS):
            parameters = [p for p in self.network(name).parameters() if p.requires_grad]
            if (make := self.make_optimizers[index]) is None:
                optimizers.append(self.default_optimizer(parameters, self.lrs[index]))
            else:
                optimizers.append(make(parameters))
                rank_zero_info(f"{name}: {type(optimizers[-1]).__name__}, lr {optimizers[-1].defaults.get('lr')}")
            if len(optimizers[-1].param_groups) == 1:
                optimizers[-1].param_groups[0].setdefault("name", name)  # what LearningRateMonitor shows
            if (schedule := self.make_schedulers[index]) is not None:
                schedulers.append(schedule(optimizers[-1]))
        return optimizers, schedulers

    def in_order(self, optimizers: Sequence[Optimizer]) -> list[Optimizer]:
        """The discriminator's optimizer, then the generator's, told apart by their parameters.

        Raises:
            ValueError: if these are not two, or one of them has parameters of both players or of none.
        """
        whole = {name: set(self._parameters_of[name]) for name in PLAYERS}
        shared = whole["discriminator"] & whole["generator"]  # tells nothing
        owned, players = {name: parameters - shared for name, parameters in whole.items()}, []
        for optimizer in optimizers:
            its = {parameter for group in optimizer.param_groups for parameter in group["params"]}
            players.append([name for name in PLAYERS if owned[name] & its])
        if sorted(players) != [[name] for name in sorted(PLAYERS)]:
            told = ", ".join(" and ".join(names) or "neither player" for names in players) or "nothing"
            raise ValueError(
                "configure_optimizers must give one optimizer for the discriminator's parameters and one for the "
                f"generator's; it gave {len(players)}, which hold parameters of: {told}"
            )
        return [
            optimizer for name in PLAYERS for optimizer, its in zip(optimizers, players, strict=True) if its == [name]
        ]

    def network(self, player: Player) -> nn.Module:
        """The network of a player, "generator" or "discriminator"."""
        return self.generator if player == "generator" else self.discriminator

    def optimizer_of(self, player: Player) -> Any:
        """Lightning's wrapper of a player's optimizer; of both, the discriminator's alone counts as a global step."""
        optimizer: Any = self.optimizers()[PLAYERS.index(player)]  # type: ignore[index]
        return uncounted(optimizer) if player == "generator" and not self.resting else optimizer

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip, after callbacks have measured: gradients are averaged over ranks and unscaled here."""
        if (clip := self.clips[self.trainer.optimizers.index(optimizer)]) is not None:
            clip(parameter for group in optimizer.param_groups for parameter in group["params"])

    def step_schedulers(self) -> None:
        """Advance each player's schedule by one training step."""
        for config in self.trainer.lr_scheduler_configs:
            config.scheduler.step()  # type: ignore[call-arg]

    def manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Lightning's, without autocast, which would cast a float32 penalty's backward pass to half precision."""
        with torch.autocast(self.device.type, enabled=False):
            super().manual_backward(loss, *args, **kwargs)

    # checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the class, the count of images, and what differs between ranks."""
        checkpoints.describe(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting images, with the same noise, each rank with its own batch statistics."""
        checkpoints.restore(self, checkpoint)

    @classmethod
    def modernise(cls, checkpoint: dict[str, Any]) -> None:
        """Bring a checkpoint that an older version has written into today's form, in place."""

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        *,
        trust: str | Iterable[str] = (),
        **kwargs: Any,
    ) -> Any:
        """The model of a checkpoint, of the class that wrote it; arguments as in Lightning, but ``weights_only=True``.

        Nothing that the file names is imported or called but networks and add-ons of lit_gans, modules of ``torch.nn``,
        optimizers and schedulers of ``torch.optim``, and classes of the modules that ``trust`` names. Networks that are
        no such classes must be given, ``generator=..., discriminator=...``.

        Args:
            checkpoint_path: Path of the checkpoint.
            map_location: Where tensors go; None: where they were, if that is there, else the CPU.
            hparams_file: A YAML file whose arguments take the place of those in the checkpoint; they are
                checked as strictly as the checkpoint itself.
            strict: Whether all weights must be there, and no others; None: yes, unless the model says otherwise.
            weights_only: As in Lightning; always true.
            trust: Modules, "my_gan" for example, whose classes the checkpoint may name besides; that of ``cls`` is one.
            kwargs: Arguments of the model, in the place of the saved ones.

        Raises:
            UntrustedError: if the checkpoint names anything else.
            ValueError: if the checkpoint was written by a model that is no ``cls``, or does not fit together.
        """
        return checkpoints.load(cls, checkpoint_path, map_location, hparams_file, strict, trust, **kwargs)

    def _set_hparams(self, hp: Any) -> None:
        plain = plain_arguments(type(self), hp)
        self._left_out = [name for name in ("augment", "regularizers") if hp.get(name) and name not in plain]
        super()._set_hparams(plain)

    # average of the generator

    @property
    def loss_scale(self) -> float:
        """The gradient scaler's, which falls if and only if it drops an update; 1 if there is none, or no average."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is None or not hasattr(self, "g_ema"):  # to read it is to wait for the device
            return 1.0
        return scaler.get_scale()

    def update_ema(self, images: int, scale: float) -> None:
        """Move ``g_ema`` towards the generator.

        Args:
            images: Real images seen since the last update, over all ranks.
            scale: ``loss_scale`` before the generator's update.

        An update that was dropped, and left no gradients or a lower scale, leaves the average where it is.
        """
        if all(parameter.grad is None for parameter in self._parameters_of["generator"]) or self.loss_scale < scale:
            return
        if self.ema_kimg is not None:
            half_life = self.ema_kimg * 1000
            if self.ema_rampup is not None:
                half_life = min(half_life, self.images_seen * self.ema_rampup)
            update_average_(self.g_ema, self.generator, 0.5 ** (images / max(half_life, 1e-8)))
        elif self.ema_decay is not None:
            update_average_(self.g_ema, self.generator, self.ema_decay)
        self._average_moved = hasattr(self, "g_ema")

    # what Lightning must be told

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the running hook some forty times a step; asked each time whether that is a parameter, an
        # nn.Module spends a tenth of a millisecond on it
        if name == HOOK_NAME:
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def configure_callbacks(self) -> list[Callback]:
        """None of our own; called before Lightning refuses flags in words that do not name ours."""
        warnings.filterwarnings(
            "ignore", "Using ModelCheckpoint with manual optimization"
        )  # saving after the step is meant
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")  # the generator's turn comes later
        warnings.filterwarnings("ignore", "You defined a `validation_step` but have no `val_dataloader`")
        warnings.filterwarnings("ignore", "You have overridden `on_before_batch_transfer` in `LightningModule` but")
        if trainer_of(self) is not None:
            check_flags(self.trainer)
        return []

    def setup(self, stage: str) -> None:
        """Refuse what cannot work; prepare DDP and compilation."""
        if stage != "fit":
            return
        use_safe_io(self.trainer.strategy)
        check_precision(self, self.trainer)
        check_ranks_agree(self, self.trainer)
        check_schedules(self)
        for penalty in self.regularizers:
            penalty.prepare()
        penalised = self.traits.double_backward or any(r.double_backward for r in self.regularizers)
        check_strategy(self.trainer.strategy, penalised)
        self._labels_unseen = self.num_classes is not None and not check_classes(self, self.trainer)
        batch = peek(self.trainer)
        self._first_look_due = batch is None
        if batch is not None:
            self.check_example(batch)
        check_compatibility(self, self.trainer)
        if self.channels_last == "auto":
            device = self.trainer.strategy.root_device.type
            self.laid_out = channels_last_pays(self, device, self.trainer.precision, batch_size(self.trainer))
        elif self.channels_last:
            lay_out(self, torch.channels_last)
        if self.compile_networks:
            compile_networks(self)

    def check_example(self, batch: Any) -> None:
        """Play one round with the first batch without learning, and refuse what does not fit."""
        if self.traits.from_pictures:
            self.example = self.unpack_batch(batch)
            check_pairs(self, self.example.part(slice(2)))
        else:
            check_batch(self, batch)

    def on_fit_start(self) -> None:
        """Lists that each step needs, gathered once all layers exist; optimizers exist only now, too."""
        self.together = None
        compiled = all(is_compiled(self.network(player)) for player in PLAYERS)
        self._steps_until_told = _COMPILED_BY if compiled else -1
        self._parameters_of = {name: list(self.network(name).parameters()) for name in PLAYERS}
        self.trainer.strategy.optimizers = self.in_order(self.trainer.optimizers)
        for optimizer in self.trainer.optimizers:
            optimizer.register_load_state_dict_post_hook(align_state)
            if self.device.type == "cpu":
                stays_on_cpu(optimizer)
        checkpoints.finish_resuming(self)
        check_compatibility(self, self.trainer, optimizers=True)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Look at the first batch of a loader that ``setup`` could not look into without losing it; set schedules."""
        follow_schedules(self, self.trainer.global_step)
        if self._first_look_due:
            self.check_example(batch)
            self._first_look_due = False
        if self._steps_until_told >= 0:
            if self._steps_until_told == 0:
                with self.trainer.precision_plugin.train_step_context():
                    tell_whether_it_pays(self, self.real_of(batch))
            self._steps_until_told -= 1
        if self._logs(self.trainer.global_step):  # else Lightning repeats the last value of a term of every n-th step
            for metric in logged_results(self.trainer):
                if not metric.meta.on_epoch:
                    metric.reset()

    def frozen(self, player: Player) -> Any:
        """No gradients for this player's parameters within the context."""
        return frozen(self._parameters_of[player])

    def finish_step(self, terms: Mapping[str, Mapping[str, Tensor]], step: int) -> None:
        """What follows the updates: the augmentation adapts, schedules advance, terms are logged."""
        if self.adapts and (step + 1) % self.augment.every == 0:
            self.adapt_augment(self.augment.every)
        self.step_schedulers()
        self.log_step(terms, step)
        self.turn, self.batch_images = None, 0

    @property
    def adapts(self) -> bool:
        """Whether the augmentation moves by what the discriminator says of real images."""
        return hasattr(self.augment, "adapt") and all(schedule.of != "augment.p" for schedule in self.schedules)

    def adapt_augment(self, steps: int) -> None:
        """Have an adaptive augmentation move by how sure the discriminator was of real images, over all ranks."""
        augment: Any = self.augment
        augment.adapt(self.mean_of_ranks(augment.mean_sign()), images=self.batch_images * steps)
        self.measured["augment_p"] = augment.p

    def joint(self, x: Tensor) -> Tensor:
        """The rows of all processes while training, for losses that compare the samples of a batch."""
        return x if self.turn is None else joint_batch(x)

    def joint_mean(self, gradient: Tensor) -> Tensor:
        """The mean over processes, while training, of a gradient that is itself differentiated."""
        return gradient if self.turn is None else mean_gradient(gradient)

    def mean_of_ranks(self, value: Tensor) -> Tensor:
        """A detached value's mean over all processes; itself in one."""
        if trainer_of(self) is None or self.trainer.world_size == 1:
            return value.detach()
        reduced: Tensor = self.trainer.strategy.reduce(value.detach().clone(), reduce_op="mean")
        return reduced

    def follow(self, average: Tensor, value: Tensor, rate: float) -> Tensor:
        """Move an average, kept in a buffer, towards a value of the joint batch; only while learning.

        Returns:
            Where it moves to, with the gradient of the value.
        """
        moved = average.lerp(value, rate)
        if self.turn is not None:
            average.copy_(moved.detach())
        return moved

    def log_step(self, terms: Mapping[str, Mapping[str, Tensor]], step: int) -> None:
        """Log each player's terms and their sum on logging steps, in one call; nothing on others."""
        if not self._logs(step):
            return
        values: dict[str, Any] = {"train/kimg": self.images_seen / 1000}
        values |= {f"train/{name}": value for name, value in (self.scheduled | self.measured).items()}
        for player, named in terms.items():
            letter = player[0]
            values |= {f"train/{letter}_{name}": value for name, value in named.items()}
            values[f"train/{letter}_loss"] = torch.stack([value.float() for value in named.values()]).sum()
        self.log_dict(values)

    def _logs(self, step: int) -> bool:
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return every > 0 and (step + 1) % every == 0

    def average_buffers(self) -> None:
        """Average floating-point buffers (batch statistics) over ranks: manual optimisation never does."""
        if self.trainer.world_size > 1:
            buffers = {name: buffer for name, buffer in statistics_of(self).items() if buffer.numel()}
            if buffers:
                write_back(self.trainer.strategy.reduce(flatten(buffers), reduce_op="mean"), buffers)

    def unpack_batch(self, batch: Any) -> Batch:
        """Images and labels of a batch: a tensor, ``(x,)``, ``(x, label)``, or a dict with ``image`` and ``label``.

        Labels are left aside by a model without classes.

        Raises:
            ValueError: if it is none of these, or a conditional model is given a batch without labels.
        """
        if isinstance(batch, dict):
            if "image" not in batch:
                raise ValueError(f"the batch is a dict of {', '.join(map(repr, batch))}: it needs 'image'")
            x = batch["image"]
        else:
            x = next(iter(batch), None) if isinstance(batch, (list, tuple)) else batch
        if not isinstance(x, Tensor):
            of = "" if x is batch else f" that begins with {type(x).__name__}"
            raise ValueError(
                f"the batch is {type(batch).__name__}{of}: it must be a tensor, (images,), (images, labels) or a dict "
                "with 'image' and 'label'; of anything else override unpack_batch(batch) to return images and labels"
            )
        if self.num_classes is None:
            return Batch(x)
        y = label_of(batch)
        if not isinstance(y, Tensor):
            raise ValueError(f"the model has num_classes={self.num_classes}, but the batch holds no labels")
        return Batch(x, y)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Compare labels that nobody could see before training with the number of classes, before a device has them."""
        if self._labels_unseen and type(self).unpack_batch is GameModule.unpack_batch:
            y = label_of(batch)
            if isinstance(y, Tensor) and y.device.type == "cpu":
                check_labels(y, cast("int", self.num_classes))
        return batch

    def real_of(self, batch: Any) -> Batch:
        """What ``unpack_batch`` finds, the images in the networks' memory format."""
        x, y = self.unpack_batch(batch)
        return Batch(x.contiguous(memory_format=torch.channels_last) if self.laid_out and x.ndim == 4 else x, y)

    def batch_of(self, player: Player, real: Batch) -> Batch:
        """Real images and labels for an update of a player: the generator's has ``g_batch`` times as many."""
        if player == "discriminator" or self.g_batch == 1:
            return real
        repeated = real.x.repeat(self.g_batch, *[1] * (real.x.ndim - 1))
        return Batch(repeated, None if real.y is None else real.y.repeat(self.g_batch))

    def labels_of_fakes(self, y: Tensor | None, n: int, rng: torch.Generator) -> Tensor | None:
        """Labels that the next n generated images are to have: those of the batch, or drawn uniformly."""
        return self.draw_labels(n, rng) if self.uniform_labels else y

    def held_out(self, real: Batch) -> Batch:
        """A held-out batch without the last samples that fill no pack."""
        return real.part(slice(0, len(real.x) - len(real.x) % self.pack))

    def on_validation_start(self) -> None:
        """All ranks validate the same generator."""
        self.settle_average()
        self.average_buffers()


def parts_of(n: int, parts: int, multiple: int = 1) -> Iterator[slice]:
    """Cut ``range(n)`` into at most ``parts`` slices of nearly equal length, none empty, each of whole multiples."""
    size = -(-n // (parts * multiple)) * multiple
    return (slice(begin, min(begin + size, n)) for begin in range(0, n, size))

"""Images to images: what all models share whose generator is given a picture in the place of noise."""

from functools import partial
from typing import Any, Literal, NoReturn

import torch
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from lit_gans.functional import Batch, Terms, pad_to_multiple
from lit_gans.game.module import Player, parts_of
from lit_gans.game.tiling import moments_held, obstacle, overlap_of, tiled
from lit_gans.game.traits import Traits
from lit_gans.models.gan import GAN
from lit_gans.modules import buffers_kept, fitting, initialise, kept_modes

__all__ = ("Translation",)


class Translation(GAN):
    """The game of pictures from pictures, and the root of its models.

    A batch is ``(source, target)``: the picture that is given, and the one that is to be made of it. In both hooks
    ``real`` is ``Batch(target, source)``, and ``fake`` is ``Batch(generator(source), source)``, the same for both
    players of a step. The generator is any module with ``forward(source)`` → pictures in [-1, 1]. ``translate`` makes
    pictures of any size; ``sample`` has nothing to draw from.

    Args:
        test_mode: How ``translate`` runs the generator: "eval", or "train", with dropout and the statistics of each
            picture by itself. It is part of the checkpoint.
        init_std: Standard deviation of the initial weights of both networks; None leaves them as they are given.
        content_only: Whether the generator learns from its content terms alone while the discriminator rests: the
            first of two stages, from whose checkpoint the second begins.
        shares: Whether logging steps tell, as ``train/share_<term>``, how much of the gradient at the generated
            pictures comes from each term of the generator's loss.
        **kwargs: All other arguments of ``GAN``, without those about noise and labels.
    """

    traits = Traits(from_pictures=True, one_fake=True)
    paired = True  # whether a target belongs to its source
    takes_mask = False  # whether the last channel of a source is a mask, 1 in the hole
    directions: tuple[str, ...] = ("a2b",)
    shows_source = True  # whether the discriminator sees the source beside the picture
    content: tuple[str, ...] = ()  # the generator's terms that need no discriminator
    two_stages = False  # whether training with a discriminator begins with the weights of a first stage without one

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        test_mode: Literal["eval", "train"] = "eval",
        init_std: float | None = None,
        content_only: bool = False,
        shares: bool = True,
        **kwargs: Any,
    ) -> None:
        name = type(self).__name__
        for argument, usual in {"latent_dim": 128, "num_classes": None, "uniform_labels": False, "g_batch": 1}.items():
            if kwargs.get(argument, usual) != usual:
                raise ValueError(f"{name} makes pictures of pictures, not of noise or labels: leave {argument} out")
        if test_mode not in ("eval", "train"):
            raise ValueError(f"test_mode must be eval or train, got {test_mode!r}")
        if content_only and not self.content:
            raise ValueError(f"{name} has no loss without its discriminator: leave content_only out")
        if content_only and kwargs.get("n_critic", 1) != 1:
            raise ValueError("with content_only the generator alone is updated, at each step: leave n_critic out")
        if kwargs.get("augment") is not None and self.shows_source:
            raise ValueError(
                f"{name} shows the discriminator a picture beside its source, and augment would move the picture "
                "alone: leave it out, and have the data flip and crop both"
            )
        for penalty in kwargs.get("regularizers") or ():
            if penalty.needs_latents:
                raise ValueError(f"{type(penalty).__name__} moves latents, and {name} has none: leave it out")
            if penalty.moves_images and self.shows_source:
                raise ValueError(
                    f"{type(penalty).__name__} moves pictures alone, and {name} shows the discriminator a picture "
                    "beside its source: leave it out"
                )
            if penalty.needs_pairs and not self.paired:
                raise ValueError(
                    f"{type(penalty).__name__} holds pictures against their targets, and those of {name} are of other "
                    "pictures: compare='source', or gram=True for the style of the targets"
                )
        if init_std is not None:
            for network in (generator, discriminator):
                initialise(network, init_std)
        super().__init__(generator, discriminator, **kwargs)
        self.test_mode, self.content_only, self.shares = test_mode, content_only, shares
        if content_only:
            self.resting = ("discriminator",)

    # the game

    def unpack_batch(self, batch: Any) -> Batch:
        """Targets, and the sources that they are to be made of: of ``(source, target)``, or a dict with both.

        Raises:
            ValueError: if it is neither.
        """
        if isinstance(batch, dict):
            batch = [batch.get("source"), batch.get("target")]
        if not isinstance(batch, (list, tuple)) or len(batch) < 2 or not all(isinstance(x, Tensor) for x in batch[:2]):
            raise ValueError(
                f"{type(self).__name__} needs batches (source, target) of pictures, or a dict with 'source' and "
                "'target': take PairedImageDataModule or UnpairedImageDataModule, or override unpack_batch(batch)"
            )
        return Batch(batch[1], batch[0])

    def inputs_of(self, real: Batch, rng: torch.Generator | None = None) -> Batch:
        """What the generator is given: the batch, whose sources it reads."""
        return real

    def make(self, inputs: Batch) -> Batch:
        """What the generator makes of sources, and these."""
        return Batch(self.generate(source_of(inputs)), inputs.y)

    def region(self, x: Tensor, made: Tensor) -> Tensor:
        """The part of targets that the generator makes: all of them."""
        return x

    def judge(self, x: Tensor, y: Tensor | None = None) -> Any:
        """What the discriminator returns after ``augment``, for pictures, beside their sources if it sees them."""
        return super().judge(x, y if self.shows_source else None)

    def play(
        self, player: Player, real: Batch | Tensor, inputs: Batch, step: int | None, fake: Batch | None = None
    ) -> Terms:
        """As in ``Game``; logging steps tell the share that each term has in the generator's gradient."""
        telling = player == "generator" and self.shares and step is not None and step >= 0 and self._logs(step)
        if telling and fake is None:
            fake = self.make(inputs)
        terms = super().play(player, real, inputs, step, fake)
        if telling and fake is not None and len(terms) > 1:
            self.measured |= shares_of(terms, fake)
        return terms

    def held_out(self, real: Batch) -> Batch:
        """As much of held-out pictures as the generator can halve; no pictures, where they are too small for that."""
        source, target = source_of(real), real.x
        scale = target.shape[-1] // source.shape[-1] if self.paired else 1
        sides = source.shape[2:] if self.paired else map(min, source.shape[2:], target.shape[2:])
        height, width = (fitting(self.generator, side) for side in sides)
        if not (height and width):
            return real.part(slice(0))
        return Batch(target[..., : height * scale, : width * scale], source[..., :height, :width])

    # before training

    def on_fit_start(self) -> None:
        """As in ``GAN``; a second stage that does not begin with the weights of the first is warned of."""
        super().on_fit_start()
        if self.two_stages and not (self.content_only or self.begun or self.trainer.global_step):
            rank_zero_warn(
                f"{type(self).__name__} begins with untrained weights: without a first stage (content_only=True, and "
                "then --init_from its checkpoint) the adversarial term mostly spoils the pictures"
            )

    def trial_inputs(self, n: int) -> Batch:
        """Pictures of the first batch.

        Raises:
            LookupError: if none could be looked at before training.
        """
        if self.example is None:
            raise LookupError("no pictures could be looked at before training")
        like = next(self.generator.parameters(), self.example.x)
        few = torch.arange(n) % len(self.example.x)
        return Batch(self.example.x[few].to(like), source_of(self.example)[few].to(like))

    def fixed_inputs(self, n: int, real: Batch | None = None, seed: int = 0) -> Batch:
        """The first pictures of a batch."""
        assert real is not None, "a translation needs pictures to be looked at"
        return real.part(slice(n))

    # use

    def settle_average(self) -> None:
        """Batch statistics of the averaged generator are those of the live one."""
        if self._average_moved:
            with torch.no_grad():
                for mine, live in zip(self.g_ema.buffers(), self.generator.buffers(), strict=True):
                    mine.copy_(live)
            self._average_moved = False

    @torch.no_grad()
    def translate(
        self,
        x: Tensor,
        seed: int = 0,
        ema: bool = True,
        test_mode: Literal["eval", "train"] | None = None,
        batch_size: int = 1,
        direction: str = "a2b",
        tile: int | None = None,
        exact: bool = False,
        fast: bool = False,
    ) -> Tensor:
        """Pictures made of others of any size, float (N, C, H, W) in [-1, 1], without gradients.

        Pictures that the generator cannot halve often enough are continued beyond their edges by reflection, and what
        is made of that is cut off.

        Args:
            x: Sources (N, C, H, W) in [-1, 1]; or uint8 or uint16, of which such pictures are made: then, in tiles, no
                more memory is taken than these. They may lie on another device than the model.
            seed: Seed of dropout in the mode "train", the same for each picture.
            ema: Use the averaged generator where there is one.
            test_mode: "eval" or "train", as the argument of the class; None for the model's own.
            batch_size: Pictures at a time. With 1 a picture depends, to the last bit, on its source alone. In the mode
                "train" it is always 1.
            direction: "b2a" for the way back, of models that have one.
            tile: Side of the tiles in which the network is shown a picture, ``lit_gans.game.tiling``; None for whole
                pictures. Networks for which a pixel may depend on the whole picture are shown that, with a warning.
            exact: Let tiles overlap so far that they cannot be told, however little it matters.
            fast: In tiles, take instance normalisation's moments from a small copy of the picture: one pass in the
                place of one for each layer, but with other contrast.

        Raises:
            ValueError: if there is no such direction or mode, there are no pictures, or they have other channels.
            FloatingPointError: if whole numbers are to be made of values that are not finite.
        """
        mode = test_mode or self.test_mode
        if ema:
            self.settle_average()
        network = self.translator(ema, direction)
        wanted = getattr(network, "in_channels", None)
        if x.ndim != 4 or not x.numel() or wanted not in (None, x.shape[1]):
            raise ValueError(f"sources must be (N, {wanted or 'C'}, H, W), got {tuple(x.shape)}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        size = batch_size if mode == "eval" else 1
        made = []
        with isolate_rng(), kept_modes(network), buffers_kept(network):
            network.train(mode == "train")
            for rows in parts_of(len(x), -(-len(x) // size)):
                torch.manual_seed(seed)
                made.append(self.pieced(network, x[rows], tile, exact, fast))
        return made[0] if len(made) == 1 else torch.cat(made)

    def pieced(self, network: nn.Module, x: Tensor, tile: int | None, exact: bool, fast: bool) -> Tensor:
        """Finished pictures, whole or in tiles, of the type of the sources."""
        like = next(network.parameters(), self.in_floats(x[..., :1, :1]))

        def shown(part: Tensor) -> Tensor:
            return self.in_floats(part.to(like.device)).to(like.dtype)

        def made_of(part: Tensor) -> Tensor:
            source = self.in_floats(part.to(like.device))
            made = self.whole(network, source.to(like.dtype)).to(source.dtype)
            if not x.is_floating_point() and not made.isfinite().all():
                raise FloatingPointError(f"{type(network).__name__} makes NaN or infinite values")
            return in_type_of(self.finish(made, source), x)

        if tile is not None and (reason := obstacle(network)):
            rank_zero_warn(f"{reason}: it is shown whole, not in tiles")
            tile = None
        if tile is None:
            return made_of(x)
        overlap, stride = overlap_of(network, exact), getattr(network, "stride", 1)
        with moments_held(network, shown, partial(self.whole, network), x, tile, overlap, stride, fast):
            return tiled(made_of, x, tile, overlap, stride)

    def in_floats(self, x: Tensor) -> Tensor:
        """Sources in [-1, 1], of these or of whole numbers; then a mask is what is above half of their range."""
        if x.is_floating_point():
            return x
        most = torch.iinfo(x.dtype).max
        found = x.float() / (most / 2) - 1
        if self.takes_mask:
            hole = found[:, -1:] > 0
            found = torch.cat([found[:, :-1].masked_fill(hole, 0), hole.to(found)], 1)
        return found

    def translator(self, ema: bool = True, direction: str = "a2b") -> nn.Module:
        """The network that ``translate`` uses: the generator, averaged where there is an average."""
        if direction not in self.directions:
            raise ValueError(f"{type(self).__name__} knows {' and '.join(self.directions)}, not {direction!r}")
        network: nn.Module = getattr(self, "g_ema", self.generator) if ema else self.generator
        return network

    def whole(self, network: nn.Module, x: Tensor) -> Tensor:
        """What a network makes of pictures of any size."""
        padded = pad_to_multiple(x, getattr(network, "stride", 1), getattr(network, "smallest", 1))
        made = self.picture(network, padded)
        scale = made.shape[-1] // padded.shape[-1]
        return made[..., : x.shape[-2] * scale, : x.shape[-1] * scale]

    def picture(self, network: nn.Module, x: Tensor) -> Tensor:
        """What a network, live or averaged, makes of sources when it is used."""
        made: Tensor = network(x)
        return made

    def finish(self, made: Tensor, x: Tensor) -> Tensor:
        """What is done at last: values are clamped to [-1, 1], and of sources with a mask, known pixels are kept."""
        made = made.clamp(-1, 1)
        return pasted(made, x) if self.takes_mask else made

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Pictures (N, C, H, W) in [-1, 1] from sources."""
        return self.generate(z)

    def sample(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Nothing: these models have no noise to draw.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            f"{type(self).__name__} makes pictures of pictures: use model.translate(source), or the command translate"
        )

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """What is made of the sources of a batch: pictures, or a tuple or dict that begins with them."""
        if isinstance(batch, dict):
            batch = batch["source"]
        return self.translate(batch[0] if isinstance(batch, (list, tuple)) else batch)


def in_type_of(made: Tensor, x: Tensor) -> Tensor:
    """Pictures in [-1, 1] on the device of their sources, and as whole numbers where these are."""
    if not x.is_floating_point():
        half = torch.iinfo(x.dtype).max / 2
        made = (made.float() * half + half).round().clamp(0, 2 * half).to(x.dtype)
    return made.to(x.device)


def source_of(batch: Batch) -> Tensor:
    """The source pictures of a batch.

    Raises:
        ValueError: if it has none.
    """
    if batch.y is None:
        raise ValueError("the batch has no source pictures: give Batch(target, source)")
    return batch.y


def shares_of(terms: Terms, fake: Batch) -> dict[str, Tensor]:
    """Norm of each term's gradient at generated pictures, as a share of the sum of all norms."""
    places = [x for x in fake if x is not None and x.requires_grad]
    norms = {}
    for name, term in terms.items():
        gradients = torch.autograd.grad(term, places, retain_graph=True, allow_unused=True)
        found = [gradient.float().square().sum() for gradient in gradients if gradient is not None]
        norms[name] = torch.stack(found).sum().sqrt() if found else term.new_zeros(())
    total = torch.stack(list(norms.values())).sum().clamp_min(1e-12)
    return {f"share_{name}": norm / total for name, norm in norms.items()}


def pasted(made: Tensor, source: Tensor) -> Tensor:
    """Pictures whose hole is filled with what was made, and whose known pixels are those of the source, bit for bit.

    Args:
        made: Whole pictures (N, C, H, W).
        source: The known pictures with their masks as the last channel, (N, C + 1, H, W); 1 is the hole.
    """
    return torch.where(source[:, -1:] > 0.5, made, source[:, :-1])

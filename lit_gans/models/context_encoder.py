"""ContextEncoder: Pathak et al. 2016, "Context encoders: feature learning by inpainting", arXiv:1604.07379."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.v2.functional import center_crop

from lit_gans.functional import Batch, Terms, window
from lit_gans.game.arguments import at_least, not_negative
from lit_gans.models.translation import Translation, pasted, source_of

__all__ = ("ContextEncoder",)

_MEAN = [value / 127.5 - 1 for value in (117, 104, 123)]  # the colour of ImageNet's mean, as the published code has it


class ContextEncoder(Translation):
    r"""Fills the hole of a picture, by its squared error and by a discriminator that sees the filled region alone.

    .. math::
        L_D = -E_x \log D(x) - E_x \log(1 - D(F(x))), \qquad
        L_G = 0.999 \| x - F(x) \|_2^2 - 0.001 \, E_x \log D(F(x))

    A source is a picture and, as its last channel, the mask, 1 in the hole: a ``PairedImageDataModule`` with the task
    ``mask``. The hole is filled with a mean colour. A generator that makes the centre of half the side, and says so by
    ``region = "center"``, fills holes there: ``networks.ContextEncoderGenerator``. One that makes whole pictures fills
    any; then the error counts in the hole alone, and the discriminator sees whole pictures with the hole filled in.
    ``translate`` gives known pixels back bit for bit.

    Differs from the paper: the squared error of a picture is a mean, over the pixels of its region with their weights.
    The published code, besides, sets the convolutions' biases to zero at each step.

    When to use it: for a hole of a fixed place and size in small pictures.

    When not: for free-form holes or large pictures: GatedInpainting.

    Family: images to images.

    Args:
        pixel_weight: λ_rec, 0.999 in section 4.2.
        adversarial_weight: λ_adv, 0.001.
        overlap: Pixels at the border of a centre that are known, and count ``overlap_weight`` times; 4, section 4.2.
        overlap_weight: 10, section 4.2.
        fill: The colour of the hole in [-1, 1], one number for each channel or one for all. None: that of the published
            code, (117, 104, 123) of 255, or the mean of these for grey pictures.
        g_lr, d_lr: 2e-3 and 2e-4: ten times as large for the generator, section 4.2 and the published code.
        init_std: 0.02, the published code.
        **kwargs: All other arguments of ``Translation``.
    """

    content = ("pixel",)
    shows_source, takes_mask = False, True

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        pixel_weight: float = 0.999,
        adversarial_weight: float = 0.001,
        overlap: int = 4,
        overlap_weight: float = 10.0,
        fill: Sequence[float] | float | None = None,
        g_lr: float = 2e-3,
        d_lr: float = 2e-4,
        init_std: float | None = 0.02,
        **kwargs: Any,
    ) -> None:
        not_negative(pixel_weight=pixel_weight, adversarial_weight=adversarial_weight, overlap_weight=overlap_weight)
        at_least(0, overlap=overlap)
        super().__init__(generator, discriminator, g_lr=g_lr, d_lr=d_lr, init_std=init_std, **kwargs)
        self.pixel_weight, self.adversarial_weight = pixel_weight, adversarial_weight
        self.overlap, self.overlap_weight = overlap, overlap_weight
        self.centred = getattr(generator, "region", "whole") == "center"
        self.fill = [fill] if isinstance(fill, (int, float)) else fill

    def make(self, inputs: Batch) -> Batch:
        """The region that the generator makes; of a whole picture, laid into the known one."""
        source = source_of(inputs)
        made = self.generate(self.filled(source))
        return Batch(made if made.shape[2:] != source.shape[2:] else pasted(made, source), source)

    def filled(self, source: Tensor) -> Tensor:
        """Section 3.2: the hole in the mean colour; the mask stays the last channel."""
        picture, mask = source[:, :-1], source[:, -1:]
        colour = picture.new_tensor(_MEAN if self.fill is None else self.fill)
        if self.fill is None and picture.shape[1] == 1:
            colour = colour.mean(0, keepdim=True)
        if len(colour) not in (1, picture.shape[1]):
            raise ValueError(f"fill has {len(colour)} numbers, the pictures {picture.shape[1]} channels: give one each")
        hole = colour.view(1, -1, 1, 1)
        return torch.cat([torch.where(mask > 0.5, hole, picture), mask], 1)

    def region(self, x: Tensor, made: Tensor) -> Tensor:
        """The part of targets that the generator makes: their centre, or all of them."""
        return x if x.shape[2:] == made.shape[2:] else center_crop(x, list(made.shape[2:]))

    def judge(self, x: Tensor, y: Tensor | None = None) -> Any:
        """What the discriminator says of the region: of a whole picture, to its centre where only that is made."""
        centre = self.centred and y is not None and x.shape[2:] == y.shape[2:]
        return super().judge(center_crop(x, [side // 2 for side in x.shape[2:]]) if centre else x)

    def discriminator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 2."""
        real_logits = self.discriminate(real)
        fake_logits = self.discriminate(fake)
        return {"real": F.softplus(-real_logits).mean(), "fake": F.softplus(fake_logits).mean()}

    def generator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 3, with the logarithm of D as in the published code."""
        target = self.region(real.x, fake.x)
        weights = self.weights(target, source_of(real))
        errors = (weights * (fake.x - target).square()).mean(1).sum((1, 2)) / weights.sum((1, 2, 3)).clamp_min(1)
        terms = {"pixel": self.pixel_weight * errors.mean()}
        if self.content_only:
            return terms
        return {"adversarial": self.adversarial_weight * F.softplus(-self.discriminate(fake)).mean(), **terms}

    def weights(self, target: Tensor, source: Tensor) -> Tensor:
        """How much each pixel of the region counts, (N, 1, h, w): section 4.2; of whole pictures, the hole."""
        if target.shape[2:] == source.shape[2:]:
            return (source[:, -1:] > 0.5).to(target.dtype)
        weights = target.new_full((len(target), 1, *target.shape[2:]), self.overlap_weight)
        rows, columns = (slice(self.overlap, side - self.overlap) for side in target.shape[2:])
        weights[:, :, rows, columns] = 1
        return weights

    def picture(self, network: nn.Module, x: Tensor) -> Tensor:
        """What a network makes of sources; a centre lies where it belongs, in a picture of the source's size."""
        made: Tensor = network(self.filled(x))
        if made.shape[2:] == x.shape[2:]:
            return made
        whole = x[:, :-1].clone()
        top, left = ((side - inner) // 2 for side, inner in zip(x.shape[2:], made.shape[2:], strict=True))
        whole[:, :, top : top + made.shape[2], left : left + made.shape[3]] = made
        return whole

    def whole(self, network: nn.Module, x: Tensor) -> Tensor:
        """Fill the hole of pictures of any size; a network of one size sees a window about it.

        Raises:
            ValueError: if a hole is larger than the region that the network makes.
        """
        size = getattr(network, "image_size", None)
        if size is None:
            return super().whole(network, x)
        return torch.cat([self.windowed(network, picture[None], size) for picture in x])

    def windowed(self, network: nn.Module, x: Tensor, size: int) -> Tensor:
        """One picture (1, C + 1, H, W) whose hole is filled by a network for squares of a size."""
        made = x[:, :-1].clone()
        rows, columns = torch.nonzero(x[0, -1] > 0.5, as_tuple=True)
        if not len(rows):
            return made
        corners = [(int(index.min()), int(index.max()) + 1) for index in (rows, columns)]
        fills = size // 2 if self.centred else size
        if max(end - begin for begin, end in corners) > fills:
            told = " × ".join(str(end - begin) for begin, end in corners)
            raise ValueError(
                f"the hole spans {told} pixels, and {type(network).__name__} fills at most {fills} × {fills}: make the "
                "pictures smaller, or take a network of a larger image_size"
            )
        top, left = ((begin + end - size) // 2 for begin, end in corners)
        filled = self.picture(network, window(x, top, left, size, size))
        (up, down), (first, last) = corners
        made[:, :, up:down, first:last] = filled[:, :, up - top : down - top, first - left : last - left]
        return made

"""PacGAN: Lin et al. 2018, "PacGAN: the power of two samples in generative adversarial networks", arXiv:1712.04086."""

from typing import Any

from torch import Tensor, nn

from lit_gans.game.arguments import at_least
from lit_gans.models.gan import GAN

__all__ = ("PacGAN",)


class PacGAN(GAN):
    r"""The GAN whose discriminator judges m samples together, and so sees when they lack variety.

    .. math::
        L_D = -E_{x_i \sim p_{data}} \log D(x_1, …, x_m) - E_{z_i} \log(1 - D(G(z_1), …, G(z_m))), \qquad
        L_G = -E_{z_i} \log D(G(z_1), …, G(z_m))

    Samples are packed along their channels: a discriminator for images of C channels is built with m·C (section 2),
    one for points of d coordinates with m·d.

    Differs from the paper: none.

    When to use it: against mode collapse at almost no cost, with any discriminator that takes more channels.

    When not: with labels, which it refuses; with batches that m does not divide; or with a discriminator whose number
    of input channels is fixed.

    Family: against collapse.

    Args:
        pack: m, samples that are judged together; 2 to 4 in the paper. It must divide the batch.
        **kwargs: All other arguments of ``GAN``, without ``num_classes``, as a pack has no one label.
    """

    def __init__(self, generator: nn.Module, discriminator: nn.Module, pack: int = 2, **kwargs: Any) -> None:
        at_least(1, pack=pack)
        if kwargs.get("num_classes") is not None:
            raise ValueError("PacGAN packs samples of different labels, so it takes none: leave num_classes out")
        super().__init__(generator, discriminator, **kwargs)
        self.pack = pack

    def judge(self, x: Tensor, y: Tensor | None = None) -> Any:
        """A logit for each m samples in a row, after ``augment``; (N, C, ...) is packed to (N/m, m·C, ...).

        Raises:
            ValueError: if m does not divide N.
        """
        if len(x) % self.pack:
            raise ValueError(f"pack={self.pack} does not divide the {len(x)} samples at hand: change the batch size")
        x = x if self.augment is None else self.augment(x)
        return self.discriminator(x.reshape(len(x) // self.pack, -1, *x.shape[2:]))

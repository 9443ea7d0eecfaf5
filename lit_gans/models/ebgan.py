"""EBGAN: Zhao et al. 2017, "Energy-based generative adversarial network", ICLR, arXiv:1609.03126."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.functional import Batch, Terms, as_batch
from lit_gans.game.arguments import not_negative
from lit_gans.game.traits import Traits
from lit_gans.models.gan import GAN

__all__ = ("EBGAN", "pulling_away", "reconstruction")


class EBGAN(GAN):
    r"""The GAN whose discriminator is an autoencoder: what it reconstructs badly has a high energy.

    .. math::
        L_D = E_{x} D(x) + E_{z} \max(0, m - D(G(z))), \qquad L_G = E_{z} D(G(z)) + w \, f_{PT}(S),
        \qquad D(x) = \|Dec(Enc(x)) - x\|^2

    with S the codes Enc(G(z)) of a batch. The discriminator given answers ``(image, code)`` to an image, as
    ``networks.MLPAutoencoder`` and ``networks.DCGANAutoencoder`` do.

    Differs from the paper: it writes the norm in equation 3 and takes the squared error in its code; the energy here is
    the squared error's mean over pixels, so that the margin does not depend on their number.

    When to use it: where reconstruction is a natural measure of the data, or no single logit should decide.

    When not: for large or varied images. The error of pixels says little about detail, the margin has to be found for
    the data, and modes are lost easily. Batches cannot be worked through in parts.

    Family: energy.

    Args:
        margin: m, the energy beyond which generated samples are left alone; with this energy a number of our own.
        pt_weight: w of the pulling-away term, 0.1 in section 2.4 (EBGAN-PT); 0 leaves it out.
        **kwargs: All other arguments of ``GAN``.
    """

    traits = Traits(tells_by_sign=False, couples_samples=True, least_batch=2)  # coupled by the pulling-away term

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        margin: float = 1.0,
        pt_weight: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(generator, discriminator, **kwargs)
        not_negative(margin=margin, pt_weight=pt_weight)
        self.margin, self.pt_weight = margin, pt_weight

    def discriminator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 1."""
        fake_energy = self.discriminate(fake)
        return {"real": self.discriminate(real).mean(), "fake": F.relu(self.margin - fake_energy).mean()}

    def generator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 2, and the pulling-away term of section 2.4."""
        energy, code = self.energy(*as_batch(fake))
        return {"adversarial": energy.mean(), "pulling_away": self.pt_weight * pulling_away(code, self.joint(code))}

    def judge(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Energies (N,), low for real images."""
        return self.energy(x, y)[0]

    def energy(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energies (N,) and codes (N, code_dim) of images, after ``augment``."""
        x = x if self.augment is None else self.augment(x)
        image, code = reconstruction(self, self.discriminator(x) if y is None else self.discriminator(x, y), x)
        return (image - x).square().flatten(1).mean(1), code.flatten(1)


def pulling_away(code: Tensor, everyone: Tensor) -> Tensor:
    """Section 2.4, equation 4: mean squared cosine between different samples.

    ``code`` (N, D) is of this process, ``everyone`` of all, whose term is the mean of this one over processes.
    """
    unit, units = F.normalize(code.float(), dim=1), F.normalize(everyone.float(), dim=1)
    with_itself = unit.square().sum(1).square().sum()
    return ((unit @ units.T).square().sum() - with_itself) / (len(unit) * max(len(units) - 1, 1))


def reconstruction(model: GAN, answer: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """The image and the code that an autoencoder answers to x; of an answer in one part, the image is both.

    Raises:
        ValueError: if the image has not the shape of x.
    """
    image, code = (answer, answer) if isinstance(answer, Tensor) else answer
    if image.shape != x.shape:
        raise ValueError(
            f"{type(model).__name__} needs a discriminator that answers (image, code), as MLPAutoencoder does; "
            f"this one answers {tuple(image.shape)} to images {tuple(x.shape)}"
        )
    return image, code

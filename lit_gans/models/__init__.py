"""The models: Lightning modules, a paper per file."""

from lit_gans.models.cgan import CGAN
from lit_gans.models.dcgan import DCGAN
from lit_gans.models.gan import GAN
from lit_gans.models.mechanics.clipping import AdaptiveClip, NormClip, ValueClip
from lit_gans.models.sngan import SNGAN
from lit_gans.models.wgan import WGAN
from lit_gans.models.wgan_gp import WGANGP

__all__ = ("CGAN", "DCGAN", "GAN", "SNGAN", "WGAN", "WGANGP", "AdaptiveClip", "NormClip", "ValueClip")

"""The models: Lightning modules, a paper per file."""

from lit_gans.game.clipping import AdaptiveClip, NormClip, ValueClip
from lit_gans.game.rates import HoldThenDecay
from lit_gans.game.schedules import Schedule
from lit_gans.models.acgan import ACGAN
from lit_gans.models.began import BEGAN
from lit_gans.models.biggan import BigGAN
from lit_gans.models.cgan import CGAN
from lit_gans.models.context_encoder import ContextEncoder
from lit_gans.models.cut import CUT
from lit_gans.models.cyclegan import CycleGAN
from lit_gans.models.dcgan import DCGAN
from lit_gans.models.dragan import DRAGAN
from lit_gans.models.ebgan import EBGAN
from lit_gans.models.esrgan import ESRGAN
from lit_gans.models.gan import GAN
from lit_gans.models.gated_inpainting import GatedInpainting
from lit_gans.models.hinge_gan import HingeGAN
from lit_gans.models.infogan import InfoGAN
from lit_gans.models.loading import load as load
from lit_gans.models.lsgan import LSGAN
from lit_gans.models.minimax_gan import MinimaxGAN
from lit_gans.models.pacgan import PacGAN
from lit_gans.models.pix2pix import Pix2Pix
from lit_gans.models.projection_gan import ProjectionGAN
from lit_gans.models.r3gan import R3GAN
from lit_gans.models.ragan import RaGAN
from lit_gans.models.reacgan import ReACGAN
from lit_gans.models.sagan import SAGAN
from lit_gans.models.sngan import SNGAN
from lit_gans.models.srgan import SRGAN
from lit_gans.models.ssgan import SSGAN
from lit_gans.models.stylegan2 import StyleGAN2
from lit_gans.models.translation import Translation as Translation
from lit_gans.models.unrolled_gan import UnrolledGAN
from lit_gans.models.wgan import WGAN
from lit_gans.models.wgan_gp import WGANGP
from lit_gans.models.wgan_lp import WGANLP

__all__ = (
    "ACGAN",
    "BEGAN",
    "CGAN",
    "CUT",
    "DCGAN",
    "DRAGAN",
    "EBGAN",
    "ESRGAN",
    "GAN",
    "LSGAN",
    "R3GAN",
    "SAGAN",
    "SNGAN",
    "SRGAN",
    "SSGAN",
    "WGAN",
    "WGANGP",
    "WGANLP",
    "AdaptiveClip",
    "BigGAN",
    "ContextEncoder",
    "CycleGAN",
    "GatedInpainting",
    "HingeGAN",
    "HoldThenDecay",
    "InfoGAN",
    "MinimaxGAN",
    "NormClip",
    "PacGAN",
    "Pix2Pix",
    "ProjectionGAN",
    "RaGAN",
    "ReACGAN",
    "Schedule",
    "StyleGAN2",
    "UnrolledGAN",
    "ValueClip",
)

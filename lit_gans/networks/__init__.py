"""Generators and discriminators: plain modules whose sizes are arguments."""

from lit_gans.networks.autoencoder import (
    BEGANAutoencoder,
    BEGANGenerator,
    DCGANAutoencoder,
    MLPAutoencoder,
    Reconstruction,
)
from lit_gans.networks.biggan import BigGANDiscriminator, BigGANGenerator
from lit_gans.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from lit_gans.networks.inpainting import (
    ContextEncoderDiscriminator,
    ContextEncoderGenerator,
    GatedConv2d,
    GatedGenerator,
    PartialConv2d,
    SNPatchDiscriminator,
)
from lit_gans.networks.layers import Answer, Network
from lit_gans.networks.mlp import MLPDiscriminator, MLPGenerator
from lit_gans.networks.patch import PatchDiscriminator
from lit_gans.networks.points import PointAutoencoder, PointDiscriminator, PointGenerator
from lit_gans.networks.r3gan import R3GANDiscriminator, R3GANGenerator
from lit_gans.networks.resnet import ResNetDiscriminator, ResNetGenerator
from lit_gans.networks.rrdb import RRDBNet, UNetDiscriminator
from lit_gans.networks.sagan import SAGANDiscriminator, SAGANGenerator, SelfAttention
from lit_gans.networks.srresnet import MSRResNet, SRDiscriminator, SRResNet
from lit_gans.networks.stylegan2 import StyleGAN2Discriminator, StyleGAN2Generator
from lit_gans.networks.translator import ResNetTranslator
from lit_gans.networks.unet import UNetGenerator

__all__ = (
    "Answer",
    "BEGANAutoencoder",
    "BEGANGenerator",
    "BigGANDiscriminator",
    "BigGANGenerator",
    "ContextEncoderDiscriminator",
    "ContextEncoderGenerator",
    "DCGANAutoencoder",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "GatedConv2d",
    "GatedGenerator",
    "MLPAutoencoder",
    "MLPDiscriminator",
    "MLPGenerator",
    "MSRResNet",
    "Network",
    "PartialConv2d",
    "PatchDiscriminator",
    "PointAutoencoder",
    "PointDiscriminator",
    "PointGenerator",
    "R3GANDiscriminator",
    "R3GANGenerator",
    "RRDBNet",
    "Reconstruction",
    "ResNetDiscriminator",
    "ResNetGenerator",
    "ResNetTranslator",
    "SAGANDiscriminator",
    "SAGANGenerator",
    "SNPatchDiscriminator",
    "SRDiscriminator",
    "SRResNet",
    "SelfAttention",
    "StyleGAN2Discriminator",
    "StyleGAN2Generator",
    "UNetDiscriminator",
    "UNetGenerator",
)

"""Generators and discriminators: plain modules whose sizes are arguments."""

from lit_gans.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from lit_gans.networks.layers import Network
from lit_gans.networks.mlp import MLPDiscriminator, MLPGenerator
from lit_gans.networks.resnet import ResNetDiscriminator, ResNetGenerator

__all__ = (
    "DCGANDiscriminator",
    "DCGANGenerator",
    "MLPDiscriminator",
    "MLPGenerator",
    "Network",
    "ResNetDiscriminator",
    "ResNetGenerator",
)

"""Parameter counts of the published tables, by arithmetic that knows nothing of our code."""

import pytest

from lit_gans.networks import DCGANDiscriminator, DCGANGenerator, ResNetDiscriminator, ResNetGenerator


def linear(fan_in, fan_out):
    return fan_in * fan_out + fan_out


def conv(fan_in, fan_out, kernel, bias=True):
    return fan_in * fan_out * kernel**2 + fan_out * bias


def norm(width):
    return 2 * width


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("width", "kernel", "total"), [(64, 4, 3_576_707), (128, 5, 18_855_043)])
def test_dcgan_generator_64(width, kernel, total):
    """Figure 1 (width 128: 4x4x1024, 8x8x512, 16x16x256, 32x32x128, 64x64x3), and the Torch release (width 64)."""
    expected = (
        100 * 8 * width * 4 * 4  # project and reshape; the norm that follows takes the place of the bias
        + norm(8 * width)
        + conv(8 * width, 4 * width, kernel, bias=False)
        + norm(4 * width)
        + conv(4 * width, 2 * width, kernel, bias=False)
        + norm(2 * width)
        + conv(2 * width, width, kernel, bias=False)
        + norm(width)
        + conv(width, 3, kernel)
    )
    assert count(DCGANGenerator(width=width, kernel_size=kernel)) == expected == total


def test_dcgan_discriminator_64():
    expected = (
        conv(3, 64, 4)
        + (conv(64, 128, 4, bias=False) + norm(128))
        + (conv(128, 256, 4, bias=False) + norm(256))
        + (conv(256, 512, 4, bias=False) + norm(512))
        + linear(4 * 4 * 512, 1)
    )
    assert count(DCGANDiscriminator()) == expected == 2_765_633


def up_block(width):
    return norm(width) + conv(width, width, 3) + norm(width) + conv(width, width, 3) + conv(width, width, 1)


@pytest.mark.parametrize(("paper", "width", "total"), [("SNGAN", 256, 4_276_739), ("WGAN-GP", 128, 1_204_483)])
def test_resnet_generator_cifar10(paper, width, total):
    """Dense 4x4, three blocks up, batch norm, 3x3 convolution to RGB."""
    expected = linear(128, 4 * 4 * width) + 3 * up_block(width) + norm(width) + conv(width, 3, 3)
    assert count(ResNetGenerator(width=width)) == expected == total


def test_resnet_generator_cifar10_with_labels():
    """Six conditional norms of ten labels take the place of six plain ones."""
    assert count(ResNetGenerator(num_classes=10)) == 4_276_739 + 6 * (10 - 1) * norm(256)


@pytest.mark.parametrize("pool", ["sum", "mean"])
def test_resnet_discriminator_cifar10(pool):
    """Two blocks down, two that keep the size, pooling, dense: the same in SNGAN (sum) and WGAN-GP (mean)."""
    first = conv(3, 128, 3) + conv(128, 128, 3) + conv(3, 128, 1)
    down = conv(128, 128, 3) + conv(128, 128, 3) + conv(128, 128, 1)
    keep = conv(128, 128, 3) + conv(128, 128, 3)
    expected = first + down + keep + keep + linear(128, 1)
    assert count(ResNetDiscriminator(pool=pool)) == expected == 1_053_825
    assert count(ResNetDiscriminator(pool=pool, num_classes=10)) == expected + 10 * 128
    assert count(ResNetDiscriminator(pool=pool, norm="layer")) == expected + (2 + 2 + 2) * norm(128)

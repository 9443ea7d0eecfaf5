import pytest
import torch
from torch import nn

from lit_gans.networks import (
    Answer,
    BigGANDiscriminator,
    DCGANDiscriminator,
    MLPDiscriminator,
    R3GANDiscriminator,
    ResNetDiscriminator,
    SAGANDiscriminator,
    StyleGAN2Discriminator,
)

SMALL = {
    MLPDiscriminator: {"widths": (16, 12)},
    DCGANDiscriminator: {"width": 4},
    ResNetDiscriminator: {"width": 4},
    SAGANDiscriminator: {"width": 4, "attention_size": 8},
    BigGANDiscriminator: {"width": 4, "attention_size": 8},
    StyleGAN2Discriminator: {"channel_base": 256, "channel_max": 8, "mapping_layers": 2},
    R3GANDiscriminator: {"width": 8},
}
LAST = {
    MLPDiscriminator: 12,
    DCGANDiscriminator: 8 * 4 * 4,
    ResNetDiscriminator: 4,
    SAGANDiscriminator: 8,
    BigGANDiscriminator: 16,
    StyleGAN2Discriminator: 8,
    R3GANDiscriminator: 8,
}


def build(cls, **kwargs):
    torch.manual_seed(0)
    return cls(image_size=16, channels=1, **SMALL[cls], **kwargs)


@pytest.mark.parametrize("num_classes", [None, 3])
@pytest.mark.parametrize("cls", SMALL)
def test_a_head_is_one_linear_layer_more_and_changes_nothing_else(cls, num_classes):
    plain, headed = build(cls, num_classes=num_classes), build(cls, num_classes=num_classes, head=5)
    added = {*headed.state_dict()} - {*plain.state_dict()}
    assert "second_head.weight" in added
    assert added <= {"second_head.weight", "second_head.bias"}
    assert headed.second_head.weight.shape == (5, LAST[cls])
    headed.load_state_dict(plain.state_dict(), strict=False)
    x, y = torch.randn(4, 1, 16, 16), None if num_classes is None else torch.tensor([0, 1, 2, 0])
    answer = headed(x, y)
    assert isinstance(answer, Answer)
    assert torch.equal(answer.logits, plain(x, y))
    assert answer.head.shape == (4, 5)


@pytest.mark.parametrize("cls", SMALL)
def test_the_head_reads_what_the_logits_read(cls):
    """A head with the weights of the last layer gives the same answer."""
    network = build(cls, head=1)
    children = dict(network.named_children())
    last = children["layers"][-1] if "layers" in children else children.get("head", children.get("out"))
    network.second_head.load_state_dict(last.state_dict())
    logits, head = network(torch.randn(4, 1, 16, 16))
    assert torch.equal(logits, head.squeeze(1))


@pytest.mark.parametrize("cls", SMALL)
def test_the_heads_loss_reaches_the_first_layer(cls):
    network = build(cls, head=3)
    network(torch.randn(4, 1, 16, 16)).head.square().sum().backward()
    first = next(p for p in network.parameters() if p.ndim > 1)
    assert first.grad.any()
    assert network.second_head.weight.grad.any()


def test_old_checkpoints_fit():
    """The keys of the networks as they were before there were heads."""
    keys = {key.partition(".")[0] for key in build(ResNetDiscriminator).state_dict()}
    assert keys == {"blocks", "head"}
    assert [*build(MLPDiscriminator).state_dict()] == [f"layers.{i}.{p}" for i in (0, 3, 6) for p in ("weight", "bias")]
    keys = [*DCGANDiscriminator(image_size=16, width=4, norm=None).state_dict()]
    assert keys == [f"layers.{i}.{p}" for i in (0, 3, 7) for p in ("weight", "bias")]
    assert isinstance(DCGANDiscriminator(image_size=16, width=4).layers, nn.Sequential)


def test_an_answer_is_a_pair():
    logits, head = Answer(torch.zeros(2), torch.ones(2, 3))
    assert logits.shape == (2,)
    assert head.shape == (2, 3)

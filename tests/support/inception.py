"""A file of Inception weights of the right keys and shapes, with random values."""

from unittest import mock

import torch
from torch import nn
from torch_fidelity import feature_extractor_inceptionv3 as fidelity


def random_network(seed=0):
    """torch-fidelity's network with weights that keep activations in range, features and logits asked for."""
    rng = torch.Generator().manual_seed(seed)
    with (
        mock.patch.object(fidelity, "load_state_dict_from_url"),
        mock.patch.object(fidelity.FeatureExtractorInceptionV3, "load_state_dict"),
    ):
        network = fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"])
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan = module.weight[0].numel()
            module.weight.copy_(torch.randn(module.weight.shape, generator=rng) * (2 / fan) ** 0.5)
        if isinstance(module, nn.BatchNorm2d):
            shape = module.weight.shape
            module.weight.copy_(0.5 + torch.rand(shape, generator=rng))
            module.bias.copy_(0.2 * torch.randn(shape, generator=rng))
            module.running_mean.copy_(0.1 * torch.randn(shape, generator=rng))
            module.running_var.copy_(0.5 + torch.rand(shape, generator=rng))
    return network


def save_random_weights(path, seed=0):
    """Write such a state_dict."""
    torch.save(random_network(seed).state_dict(), path)
    return path

"""The network and the weights of the FID: found, checked, downloaded once, and made faster without changing it."""

import hashlib
import io
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch_fidelity.feature_extractor_inceptionv3 import (
    URL_INCEPTION_V3,
    BasicConv2d,
    FeatureExtractorInceptionV3,
)

from lit_gans.metrics.published import find_weights as find_published

__all__ = ("SHA256", "build_inception", "find_weights")

SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Of the weights of 2015-12-05, as torch-fidelity publishes them."""
VARIABLE = "LIT_GANS_INCEPTION"


def build_inception(path: str | Path | None = None) -> tuple[nn.Module, str, str]:
    """The network, the name that its numbers carry, and the hash of its weights.

    Args:
        path: File of the weights; None looks for them as ``find_weights`` does.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is empty, broken, or holds another network's weights.
    """
    path = find_weights() if path is None else Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of Inception weights at {path}")
    weights = hashlib.sha256(path.read_bytes()).hexdigest()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        safe = (
            io.BytesIO()
        )  # torch-fidelity reads its file with weights_only=False: it gets one that was found harmless
        torch.save(state, safe)
        safe.seek(0)
        network = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=safe
        )
    except Exception as error:  # of torch, pickle and zip, and of missing keys and wrong shapes
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(
            f"{path} does not hold the weights of the FID's Inception ({reason}): fetch {URL_INCEPTION_V3}"
        ) from error
    if weights == SHA256:
        return Body(network), "inception", weights
    name = f"inception_{weights[:8]}"
    rank_zero_warn(
        f"{path} fits, but is not the file of 2015-12-05 (SHA-256 {weights[:8]}…, not {SHA256[:8]}…): "
        f"its distance is called fd_{name}, not FID."
    )
    return Body(network), name, weights


def find_weights() -> Path:
    """The file of weights: ``$LIT_GANS_INCEPTION``, torch hub's cache, or a download by one process a machine.

    Raises:
        FileNotFoundError: if it is nowhere, and cannot be downloaded.
    """
    return find_published(
        URL_INCEPTION_V3,
        VARIABLE,
        SHA256,
        "FID needs Inception's weights",
        "or measure without: another extractor (--extractor digits, mnist, torchvision:MODEL, timm:MODEL, a "
        "TorchScript file or package.module.Class), whose distance bears its name and is no FID",
    )


class Body(nn.Module):
    """torch-fidelity's layers in their order, batch norms folded, channels last; (N, 3, 299, 299) → 2048 and 1008."""

    def __init__(self, network: FeatureExtractorInceptionV3) -> None:
        super().__init__()
        for module in network.modules():
            if isinstance(module, BasicConv2d):
                module.conv, module.bn = fuse_conv_bn_eval(module.conv, module.bn), nn.Identity()
        *layers, last = network.children()  # registered in the order in which they are used
        self.layers = nn.Sequential(*layers, nn.Flatten()).to(memory_format=torch.channels_last)
        self.register_buffer("weight", last.weight.detach())
        self.weight: Tensor

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features, and logits without bias."""
        features = self.layers(x)
        return features, features @ self.weight.T

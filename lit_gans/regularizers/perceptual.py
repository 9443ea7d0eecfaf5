"""PerceptualLoss: Johnson et al. 2016, "Perceptual losses for real-time style transfer and super-resolution"."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchvision.models import VGG19_Weights, vgg19

from lit_gans.functional import Batch
from lit_gans.metrics.extractors import FeatureExtractor, load_extractor
from lit_gans.metrics.images import convert_channels
from lit_gans.metrics.published import find_weights
from lit_gans.regularizers.regularizer import Regularizer

__all__ = ("PerceptualLoss",)

VARIABLE = "LIT_GANS_VGG19"
_CONVOLUTIONS = {f"conv{block}_{n}" for block, many in enumerate((2, 2, 4, 4, 4), 1) for n in range(1, many + 1)}


class PerceptualLoss(Regularizer):
    r"""Holds generated pictures near their targets in what a classifier sees in them.

    .. math:: L = \sum_l w_l \, \| φ_l(y) - φ_l(G(x)) \|, \qquad
        L_{style} = \sum_l w_l \, \| \text{Gram}(φ_l(y)) - \text{Gram}(φ_l(G(x))) \|

    with :math:`φ_l` the maps of layer l, norms that are means over all their numbers, and Gram matrices divided by C H
    W. arXiv:1603.08155, equations 2 to 4. As an add-on it goes onto any model of pictures from pictures.

    The network is loaded when training begins. It is no part of the model: neither its weights nor its hash are in a
    checkpoint. VGG19's weights are torchvision's; they are looked for at ``$LIT_GANS_VGG19``, then in torch hub's
    cache, else downloaded. Pictures in [-1, 1] are brought to the range that the network was trained on; grey ones are
    repeated. Their size stays.

    Args:
        extractor: "vgg19", or another network by name, as ``lit_gans.metrics.load_extractor`` takes it:
            "torchvision:resnet50", "digits", "my.module.Net?mean=0.5".
        layers: Names of layers: of VGG19 its convolutions, "conv1_1" to "conv5_4"; of others their modules, as
            ``named_modules`` has them.
        weights: Factor of each layer; None for 1.
        norm: "l1" for the mean absolute difference, "l2" for the mean squared one.
        before_activation: Of VGG19, whether maps are those before the ReLU behind the convolution (ESRGAN) or after it
            (Johnson et al., SRGAN).
        gram: Whether Gram matrices are compared: the style, wherever in the picture it is.
        compare: What generated pictures are compared with: their "target", or, without pairs, their "source".
        weight: Factor of the whole.
        every: Updates between two evaluations; the loss is scaled by it.

    Raises:
        ValueError: if there is no such layer, or not one weight for each.
        FileNotFoundError: when training begins, if there are no weights and no network to fetch them.
    """

    player, double_backward, asks_discriminator = "generator", False, False
    imports = ("extractor",)  # of a checkpoint's, what it may name is looked at before it is built

    def __init__(
        self,
        extractor: str = "vgg19",
        layers: Sequence[str] = ("conv5_4",),
        weights: Sequence[float] | None = None,
        norm: Literal["l1", "l2"] = "l1",
        before_activation: bool = True,
        gram: bool = False,
        compare: Literal["target", "source"] = "target",
        weight: float = 1.0,
        every: int = 1,
    ) -> None:
        super().__init__(weight, every)
        self.layers, self.factors = tuple(layers), tuple(weights) if weights is not None else (1.0,) * len(layers)
        if not self.layers or len(self.factors) != len(self.layers):
            raise ValueError(
                f"PerceptualLoss: {len(self.factors)} weights for {len(self.layers)} layers: give one for each"
            )
        if norm not in ("l1", "l2") or compare not in ("target", "source"):
            raise ValueError(f"PerceptualLoss: norm is l1 or l2, compare target or source, got {norm!r}, {compare!r}")
        unknown = [layer for layer in self.layers if layer not in _CONVOLUTIONS] if extractor == "vgg19" else []
        if unknown:
            raise ValueError(f"PerceptualLoss: VGG19 has no layer {unknown[0]!r}: there are conv1_1 to conv5_4")
        self.extractor, self.norm, self.before_activation, self.gram = extractor, norm, before_activation, gram
        self.compare, self.name = compare, "style" if gram else "perceptual"
        self.needs_pairs = compare == "target" and not gram
        self._seer: list[Maps] = []  # a list hides it from state_dict, optimizers and reducers

    def forward(self, model: Any, real: Batch, fake: Batch) -> Tensor:
        """Equations 2 and 3, or 4; to the target, or the source, no gradient flows."""
        if not model.traits.from_pictures:
            raise ValueError(
                f"PerceptualLoss is for models of pictures from pictures, and {type(model).__name__} is none"
            )
        like = real.x if self.compare == "target" else real.y
        if like is None or like.ndim != 4:
            raise ValueError("PerceptualLoss: the model has no source pictures to compare with")
        if self.compare == "source" and getattr(model, "takes_mask", False):
            like = like[:, :-1]
        return self.distance(fake.x, model.region(like, fake.x) if hasattr(model, "region") else like)

    def distance(self, made: Tensor, like: Tensor) -> Tensor:
        """The weighted sum over layers, of pictures (N, C, H, W) in [-1, 1]; a scalar."""
        with torch.no_grad():
            wanted = self.maps(like)
        total = torch.zeros((), device=made.device)
        for factor, ours, theirs in zip(self.factors, self.maps(made), wanted, strict=True):
            wide = torch.promote_types(ours.dtype, torch.float32)
            ours, theirs = (gram(x.to(wide)) if self.gram else x.to(wide) for x in (ours, theirs))
            difference = ours - theirs
            total = total + factor * (difference.abs() if self.norm == "l1" else difference.square()).mean()
        return total

    def prepare(self) -> None:
        """Load the network, if that has not been done."""
        if not self._seer:
            self._seer.append(
                vgg19_maps(self.layers, self.before_activation)
                if self.extractor == "vgg19"
                else Maps(load_extractor(self.extractor), self.layers)
            )

    def maps(self, x: Tensor) -> list[Tensor]:
        """What the network sees in pictures, for each layer."""
        self.prepare()
        return self._seer[0](x)


class Maps:
    """The maps of some layers of a frozen network.

    Args:
        extractor: The network behind its preprocessing.
        layers: Names of its modules, of which the answers are wanted.

    Raises:
        ValueError: if there is no such module.
    """

    def __init__(self, extractor: FeatureExtractor, layers: Sequence[str]) -> None:
        self.extractor, self.layers = extractor, layers
        for module in extractor.network.modules():
            if getattr(module, "inplace", False):  # would write over the map of the layer before it
                module.inplace = False  # type: ignore[assignment]
        modules = dict(extractor.network.named_modules())
        if unknown := [layer for layer in layers if layer not in modules]:
            names = ", ".join(name for name in list(modules)[1:20])
            raise ValueError(f"PerceptualLoss: {extractor.name} has no layer {unknown[0]!r}: there are {names}, ...")
        self.modules = [modules[layer] for layer in layers]

    def __deepcopy__(self, memo: dict[int, Any]) -> "Maps":
        return self  # nothing in it ever changes

    def __call__(self, x: Tensor) -> list[Tensor]:
        """Maps (N, C, h, w), or vectors (N, C), of pictures in [-1, 1]; with the gradient of the pictures."""
        seen = dict[int, Tensor]()
        hooks = [
            module.register_forward_hook(lambda _, x, answer, n=n: seen.__setitem__(n, answer))
            for n, module in enumerate(self.modules)
        ]
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        self.extractor.network.to(x.device, x.dtype)
        try:
            self.extractor.network(self.extractor.normalise(convert_channels((x + 1) * 127.5, self.extractor.channels)))
        finally:
            for hook in hooks:
                hook.remove()
        return [seen[n] for n in range(len(self.modules))]


def vgg19_maps(layers: Sequence[str], before_activation: bool) -> Maps:
    """The maps of VGG19, cut off behind the last layer that is wanted.

    Raises:
        FileNotFoundError: if its weights are nowhere.
        ValueError: if the file does not hold them.
    """
    url = str(VGG19_Weights.IMAGENET1K_V1.url)
    prefix = url.rpartition("-")[2].removesuffix(".pth")
    path = find_weights(
        url,
        VARIABLE,
        prefix,
        "PerceptualLoss needs VGG19's weights",
        "or take another extractor, such as torchvision:resnet18, or the first stage, content_only, which needs none",
    )
    found = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    if not found.startswith(prefix):
        rank_zero_warn(f"{path} is not the file that torchvision publishes (SHA-256 {found[:8]}…, not {prefix}…)")
    network, names = vgg19().features, list[str]()
    block = n = 1
    for layer in network:
        if isinstance(layer, nn.MaxPool2d):
            block, n = block + 1, 1
        names.append(f"{'conv' if isinstance(layer, nn.Conv2d) else 'relu'}{block}_{n}")
        n += isinstance(layer, nn.ReLU)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        features = {key.removeprefix("features."): value for key, value in state.items() if key.startswith("features.")}
        network.load_state_dict(features)
    except Exception as error:  # of torch, pickle and zip, and of missing keys and wrong shapes
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(f"{path} does not hold the weights of VGG19 ({reason}): fetch {url}") from error
    wanted = [names.index(layer if before_activation else layer.replace("conv", "relu")) for layer in layers]
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    extractor = FeatureExtractor(network[: max(wanted) + 1], "vgg19", weights=found, mean=mean, std=std)
    return Maps(extractor, [str(index) for index in wanted])


def gram(x: Tensor) -> Tensor:
    """Gram matrices (N, C, C) of maps (N, C, H, W), divided by C H W: equation 4.

    Example:
        >>> gram(torch.ones(1, 2, 2, 2))
        tensor([[[0.5000, 0.5000],
                 [0.5000, 0.5000]]])
    """
    rows = x.flatten(2)
    return rows @ rows.transpose(1, 2) / (rows.shape[1] * rows.shape[2])

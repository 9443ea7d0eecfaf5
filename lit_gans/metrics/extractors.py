"""What looks at images for a metric: frozen networks, each with the name and the hash that its numbers carry."""

import copy
import hashlib
import importlib
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import torch
from torch import Tensor, nn

from lit_gans.metrics.images import RESIZES, check_images, convert_channels, resize
from lit_gans.metrics.inception import build_inception

__all__ = (
    "Classifier",
    "FeatureExtractor",
    "Features",
    "InceptionV3",
    "ModuleExtractor",
    "load_extractor",
    "usual_extractor",
)


RESERVED = ("inception", "digits", "mnist")
"""Names of the extractors that come with the package."""


class Features(NamedTuple):
    """What an extractor sees in N images."""

    features: Tensor
    """Float32 (N, D)."""
    logits: Tensor | None = None
    """Float32 (N, K), of a classifier's K classes; None where there are none."""


class FeatureExtractor:
    """A frozen network behind fixed preprocessing.

    It is no ``nn.Module``, so that it enters no state_dict, no optimizer and no reducer of a module that holds it, and
    follows neither its mode nor its precision; it follows the images to their device. Images pass through the network
    in chunks of one constant size, the last one filled up: what is seen in an image then does not depend, to the last
    bit, on the batch it came in. ``num_features`` and ``num_classes`` (None without logits) are known from the start
    where ``image_size`` is given, else from the first images.

    Args:
        network: From float images (N, channels, H, W) to features (N, D), or to a tuple of features and logits (N, K).
        name: What numbers are called by: ``fd_<name>``.
        weights: Hash of the weights, or another version; None takes the SHA-256 of the network's state_dict.
        image_size: Height and width that images are resized to; None takes them as they are.
        channels: Number of channels that the network wants, 1 or 3; grey images are repeated, RGB images become grey.
        mean: Mean of each channel, on the scale of pixels in 0..1, which is subtracted.
        std: Standard deviation, by which the difference from ``mean`` is divided.
        resize: One of ``lit_gans.metrics.images.RESIZES``.
        chunk: Images per pass on the CPU.
        chunk_gpu: Number of images in one pass on a GPU.

    Raises:
        ValueError: if the network does not answer with one vector for each image.

    Example:
        >>> extractor = FeatureExtractor(nn.Flatten(), "pixels", image_size=8, channels=1)
        >>> extractor(torch.zeros(5, 3, 16, 16, dtype=torch.uint8)).features.shape
        torch.Size([5, 64])
        >>> extractor.key
        'fd_pixels'
    """

    def __init__(
        self,
        network: nn.Module,
        name: str,
        weights: str | None = None,
        image_size: int | None = None,
        channels: int = 3,
        mean: float | tuple[float, ...] = 0.5,
        std: float | tuple[float, ...] = 0.5,
        resize: str = "bilinear",
        chunk: int = 16,
        chunk_gpu: int = 64,
    ) -> None:
        if resize not in RESIZES:
            raise ValueError(f"there is no resize {resize!r}: there are {', '.join(RESIZES)}")
        self.network = network.eval().float()
        for parameter in network.parameters():  # one by one: TorchScript knows no requires_grad_
            parameter.requires_grad_(False)
        self.name, self.image_size, self.channels, self.resize = name, image_size, channels, resize
        self.weights = hash_of(network) if weights is None else weights
        self.mean, self.std = (_per_channel(value, channels) for value in (mean, std))
        self.chunk, self.chunk_gpu = chunk, chunk_gpu
        self.num_features: int | None = None
        self.num_classes: int | None = None
        self._answers: dict[int, str] = {}
        if image_size is not None:
            self.fingerprint(image_size)

    @property
    def key(self) -> str:
        """What a Fréchet distance of these features is called: ``fid`` for the true Inception alone."""
        return f"fd_{self.name}"

    def describe(self) -> dict[str, Any]:
        """All that the features depend on, as plain values."""
        return {
            "name": self.name,
            "weights": self.weights,
            "image_size": self.image_size,
            "channels": self.channels,
            "resize": self.resize if self.image_size else None,
            "normalisation": f"(x / 255 - {_text(self.mean)}) / {_text(self.std)}",
            "num_features": self.num_features,
        }

    def fingerprint(self, size: int) -> str:
        """A hash of what is seen in two made-up images of this size: another network with these weights gives another.

        The last bits count, so it holds on one machine only; empty if the network takes no such images.
        """
        size = self.image_size or size
        if size not in self._answers:
            rng = torch.Generator().manual_seed(0)
            images = torch.randint(0, 256, (2, self.channels, size, size), generator=rng, dtype=torch.uint8)
            try:
                features = self(images).features
            except RuntimeError:
                return ""
            self._answers[size] = hashlib.sha256(features.numpy().tobytes()).hexdigest()
        return self._answers[size]

    def with_resize(self, method: str) -> "FeatureExtractor":
        """The same network behind another way to resize."""
        if method not in RESIZES:
            raise ValueError(f"there is no resize {method!r}: there are {', '.join(RESIZES)}")
        other = copy.copy(self)
        other.resize = method
        return other

    def to(self, device: torch.device | str) -> "FeatureExtractor":
        """Move the network."""
        self.network.to(device)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "FeatureExtractor":
        return self  # nothing in it ever changes

    @torch.no_grad()
    def __call__(self, images: Tensor | Sequence[Tensor]) -> Features:
        """Features of images.

        Args:
            images: uint8 (N, 1 or 3, H, W), or N images (1 or 3, H, W) each of its own size.

        Raises:
            ValueError: if the images are not of that form, or the network returns no vectors.
        """
        if isinstance(images, Sequence):
            if self.image_size is None and len({image.shape for image in images}) > 1:
                raise ValueError(f"the extractor {self.name!r} has no image_size, and the images are of several sizes")
            batch: Tensor = torch.cat([self.prepare(image[None]) for image in images])
        else:
            check_images(images)
            batch = images
        self.network.to(batch.device)
        size = self.chunk if batch.device.type == "cpu" else self.chunk_gpu
        with ExitStack() as stack:
            stack.enter_context(torch.autocast(batch.device.type, enabled=False))
            stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
            torch.set_float32_matmul_precision("highest")
            if batch.device.type == "cuda":  # TF32 would move the third digit
                stack.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
            parts = [self._look(part, size) for part in batch.split(size)]
        features = torch.cat([part.features for part in parts])
        some = [part.logits for part in parts if part.logits is not None]
        logits = torch.cat(some) if some else None
        self.num_features = features.shape[1]
        self.num_classes = None if logits is None else logits.shape[1]
        return Features(features, logits)

    def prepare(self, images: Tensor) -> Tensor:
        """uint8 (N, 1 or 3, H, W) → float32 of the network's channels and size, still in 0..255."""
        check_images(images)
        x = convert_channels(images.float(), self.channels)
        return x if self.image_size is None else resize(x, self.image_size, self.resize)

    def _look(self, images: Tensor, size: int) -> Features:
        """Features of at most ``size`` images, prepared or not, from a batch of exactly so many."""
        x = self.prepare(images) if images.dtype == torch.uint8 else images
        n = len(x)
        if n < size:
            x = torch.cat([x, x.new_zeros(size - n, *x.shape[1:])])
        seen = self.network(self.normalise(x))
        features, logits = seen if isinstance(seen, tuple | list) else (seen, None)
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != size:
            shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(
                f"the extractor {self.name!r} returns {shape} for {size} images, but one vector for each is needed, "
                f"({size}, D): average maps over their pixels, x.mean((2, 3)), or flatten them"
            )
        return Features(features[:n].float(), None if logits is None else logits[:n].float())

    def normalise(self, x: Tensor) -> Tensor:
        """Pixels in 0..255 → what the network was trained on."""
        mean, std = (x.new_tensor(value).view(1, -1, 1, 1) * 255 for value in (self.mean, self.std))
        return (x - mean) / std


class InceptionV3(FeatureExtractor):
    """The network of the FID: Inception-v3 with the weights of 2015-12-05, its 2048 features and 1008 logits.

    torch-fidelity's, with TensorFlow 1's resizing. Batch norms are folded into convolutions and tensors laid out
    channels last: faster by half, and equal to rounding. The logits are without bias, as the Inception score has them.

    The weights are looked for at ``$LIT_GANS_INCEPTION``, then in torch hub's cache, else downloaded. A file of the
    same form but another hash is used with a warning, and its distance is called ``fd_inception_<hash>``, never FID.

    Args:
        path: File of the weights; None looks as said.
        resize: One of ``lit_gans.metrics.images.RESIZES``: ``tf1`` for the FID as published, ``pil-bicubic`` for
            Clean-FID.

    Raises:
        FileNotFoundError: if there are no weights and no network to fetch them.
        ValueError: if the file does not hold them.
    """

    def __init__(self, path: str | Path | None = None, resize: str = "tf1") -> None:
        network, name, weights = build_inception(path)
        super().__init__(network, name, weights, image_size=299, mean=128 / 255, std=128 / 255, resize=resize, chunk=8)

    @property
    def key(self) -> str:
        """``fid``, if the weights are those of 2015-12-05."""
        return "fid" if self.name == "inception" else f"fd_{self.name}"

    def normalise(self, x: Tensor) -> Tensor:
        """Exactly the graph's own (x - 128) / 128."""
        return ((x - 128) / 128).contiguous(memory_format=torch.channels_last)


class Classifier(FeatureExtractor):
    """A small classifier that comes with the package, for numbers without downloads.

    Args:
        name: ``digits`` (scikit-learn's, 8×8) or ``mnist``.

    Example:
        >>> seen = Classifier("digits")(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
        >>> seen.features.shape, seen.logits.shape
        (torch.Size([2, 64]), torch.Size([2, 10]))
    """

    def __init__(self, name: str) -> None:
        if name not in ("digits", "mnist"):
            raise ValueError(f"there is no classifier {name!r}: there are digits, mnist")
        from lit_gans.metrics.classifiers import WEIGHTS, load_classifier  # with what trains it, which few need

        network = load_classifier(name)  # type: ignore[arg-type]
        weights = hashlib.sha256((WEIGHTS / f"{name}.safetensors").read_bytes()).hexdigest()
        size = 8 if name == "digits" else 28
        super().__init__(network, name, weights, image_size=size, channels=1, chunk=64, chunk_gpu=256)


class ModuleExtractor(FeatureExtractor):
    """Any other network: a module, a class by name, TorchScript, or a model of torchvision or timm.

    Args:
        network: An ``nn.Module``; ``package.module.Class`` (built without arguments); a file written by
            ``torch.jit.save``; ``torchvision:<model>`` or ``timm:<model>``, with their published weights, if installed.
        weights: File with a state_dict (``.safetensors``, or torch's, perhaps under the key ``state_dict``) to load
            into ``network``.
        name: Name of the extractor, which its results bear; None takes the class, file or model name.
        image_size: Height and width that images are resized to; None takes them as they are (for timm, its own).
        channels: 1 or 3.
        mean: Mean of each channel, on the scale of pixels in 0..1; None for the network's published one, else 0.5.
        std: Standard deviation of the pixels, likewise.
        resize: One of ``lit_gans.metrics.images.RESIZES``.
        raw: Hand over the pixels as uint8 in 0..255, as torchmetrics does to a module of one's own, in place of
            (x / 255 - mean) / std. None: normalised, with a warning where ``mean`` and ``std`` are nobody's.

    Raises:
        ValueError: if the network or its weights cannot be loaded, or it returns no vectors; if ``raw`` pixels are to
            have a mean or deviation.
    """

    def __init__(
        self,
        network: nn.Module | str,
        weights: str | Path | None = None,
        name: str | None = None,
        image_size: int | None = None,
        channels: int = 3,
        mean: float | tuple[float, ...] | None = None,
        std: float | tuple[float, ...] | None = None,
        resize: str = "pil-bilinear",
        raw: bool | None = None,
    ) -> None:
        self.raw = bool(raw)
        if raw and (mean, std) != (None, None):
            raise ValueError("raw pixels are handed over as they are: leave mean and std out")
        options: dict[str, Any] = {}
        if isinstance(network, str):
            name = name or _short_name(network)
            network, options = load_network(network)
        else:
            network = copy.deepcopy(network)  # it will be frozen
        if weights is not None:
            load_weights(network, Path(weights))
        name = name or type(network).__name__.lower()
        if name in RESERVED or name.startswith("inception_"):
            raise ValueError(f"the name {name!r} is that of another extractor: give this one its own with name=")
        given = {"image_size": image_size, "mean": mean, "std": std}
        options |= {key: value for key, value in given.items() if value is not None}
        if raw is None and not {"mean", "std"} & options.keys():
            warnings.warn(
                f"{name} is given pixels normalised to [-1, 1]; torchmetrics would hand it uint8, which is another "
                "number: ModuleExtractor(network, raw=True) does so, too; mean= and std=, or raw=False, say what is "
                "meant",
                stacklevel=3,
            )
        super().__init__(network, name, channels=channels, resize=resize, **options)

    def normalise(self, x: Tensor) -> Tensor:
        """Pixels in 0..255 → what the network was trained on."""
        return x.round().clamp(0, 255).to(torch.uint8) if self.raw else super().normalise(x)

    def describe(self) -> dict[str, Any]:
        """All that the features depend on, as plain values."""
        return super().describe() | ({"normalisation": "none: uint8 in 0..255"} if self.raw else {})


def usual_extractor(dataset: str | None) -> str:
    """The extractor of a data set where none is named: the classifier of its own of ``digits`` and ``mnist``."""
    return dataset if dataset in ("digits", "mnist") else "inception"


def load_extractor(extractor: "str | nn.Module | FeatureExtractor") -> FeatureExtractor:
    """The extractor meant: ``inception``, ``digits``, ``mnist``, what ``ModuleExtractor`` takes, or itself.

    Options of ``ModuleExtractor`` may follow a name: ``my.module.Net?weights=net.pth&image_size=32&mean=0.5,0.5,0.5``.

    Raises:
        FileNotFoundError: if weights are missing.
        ValueError: if there is none of that name, or its files do not hold what they should.
    """
    if isinstance(extractor, FeatureExtractor):
        return extractor
    if extractor == "inception":
        return InceptionV3()
    if extractor in ("digits", "mnist"):
        return Classifier(str(extractor))
    if isinstance(extractor, nn.Module):
        return ModuleExtractor(extractor)
    network, _, options = extractor.partition("?")
    if ":" in network or "." in network:
        return ModuleExtractor(network, **{key: _option(key, value) for key, value in parse_qsl(options)})
    raise ValueError(
        f"there is no extractor {extractor!r}: give inception, digits, mnist, torchvision:<model>, timm:<model>, "
        "a TorchScript file or the path of a class, package.module.Class"
    )


def _option(key: str, value: str) -> Any:
    """An option of ``ModuleExtractor`` as text → its value."""
    kinds: dict[str, Callable[[str], Any]] = dict.fromkeys(("weights", "name", "resize"), str)
    kinds |= dict.fromkeys(("image_size", "channels"), int)
    kinds["raw"] = {"true": True, "false": False}.__getitem__
    kinds |= dict.fromkeys(("mean", "std"), lambda text: tuple(float(word) for word in text.split(",")))
    try:
        return kinds[key](value)
    except (KeyError, ValueError):
        raise ValueError(f"extractor: {key}={value} is no option; there are {', '.join(kinds)}") from None


def _short_name(network: str) -> str:
    """What a network given by name is called."""
    library, _, model = network.partition(":")
    if model and library in ("torchvision", "timm"):
        return model.replace(".", "_").lower()
    return (Path(network).stem if Path(network).is_file() else network.rpartition(".")[2]).lower()


def load_network(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """A network by name, and the preprocessing published with it."""
    library, _, model = name.partition(":")
    if model and library in ("torchvision", "timm"):
        try:
            return _torchvision(model) if library == "torchvision" else _timm(model)
        except ImportError as error:
            raise ValueError(f"the extractor {name} needs {library}: pip install {library}") from error
        except Exception as error:  # unknown models, no network: each library has its own
            raise ValueError(f"the extractor {name} cannot be had: {error}") from error
    if Path(name).is_file():
        try:
            return torch.jit.load(name, map_location="cpu"), {}
        except RuntimeError as error:
            raise ValueError(f"{name} is no TorchScript file (torch.jit.save writes them)") from error
    module, _, cls = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), cls)(), {}
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ValueError(f"the extractor {name!r} is neither a file nor a class that can be built: {error}") from error


def _torchvision(model: str) -> tuple[nn.Module, dict[str, Any]]:
    from torchvision.models import get_model, get_model_weights

    weights = get_model_weights(model).DEFAULT
    network, transforms = get_model(model, weights=weights), weights.transforms()
    for head in ("fc", "head", "classifier", "heads"):  # what comes before the last layer is wanted
        if isinstance(getattr(network, head, None), nn.Module):
            setattr(network, head, nn.Flatten())
            break
    options = {"mean": tuple(transforms.mean), "std": tuple(transforms.std), "image_size": transforms.crop_size[0]}
    return network, options


def _timm(model: str) -> tuple[nn.Module, dict[str, Any]]:
    import timm

    network = timm.create_model(model, pretrained=True, num_classes=0)
    config = network.pretrained_cfg
    return network, {"mean": config["mean"], "std": config["std"], "image_size": config["input_size"][-1]}


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a state_dict into the network, strictly, executing nothing.

    Raises:
        ValueError: if the file is missing, broken, or another network's.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        prefix = "module." if all(key.startswith("module.") for key in state) else ""  # left by DataParallel
        network.load_state_dict({key.removeprefix(prefix): value for key, value in state.items()})
    except Exception as error:  # of torch, pickle, zip, safetensors and the file system
        raise ValueError(f"{path} does not hold the weights of {type(network).__name__}: {error}") from error


def hash_of(network: nn.Module) -> str:
    """SHA-256 of all parameters and buffers, names included."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _per_channel(value: float | tuple[float, ...], channels: int) -> tuple[float, ...]:
    values = tuple(float(v) for v in value) if isinstance(value, tuple | list) else (float(value),)
    values = values * channels if len(values) == 1 else values
    if len(values) != channels:
        raise ValueError(f"mean and std need one value or {channels}, one for each channel, got {values}")
    return values


def _text(values: tuple[float, ...]) -> str:
    short = [f"{value:.6g}" for value in values]
    return short[0] if len(set(short)) == 1 else f"({', '.join(short)})"

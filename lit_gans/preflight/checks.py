"""What is refused before training starts, each with the reason and the remedy."""

import copy
from collections.abc import Iterator
from types import NoneType
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.plugins import TorchSyncBatchNorm
from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
    Strategy,
)
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lit_gans.functional import logits_of
from lit_gans.internals import ddp_arguments, layer_sync, set_layer_sync, training_source
from lit_gans.modules import eval_mode
from lit_gans.strategies import BatchNormSync, GANDDPStrategy

__all__ = (
    "FAR",
    "check_batch",
    "check_classes",
    "check_flags",
    "check_labels",
    "check_strategy",
    "label_of",
    "peek",
)

FAR = 100.0
"""Untrained images beyond it are of another scale, such as 0..255; a little outside of [-1, 1] they may begin."""


def check_flags(trainer: Trainer) -> None:
    """Refuse Trainer flags that two alternating players cannot honour, and name ours.

    Raises:
        ValueError: naming the flag and the argument of the model that takes its place.
    """
    if trainer.gradient_clip_val:
        raise ValueError(
            f"Trainer(gradient_clip_val={trainer.gradient_clip_val}) cannot clip two players: leave it out and give "
            f"the model g_clip={trainer.gradient_clip_val} and d_clip={trainer.gradient_clip_val}"
        )
    if trainer.accumulate_grad_batches != 1:
        raise ValueError(
            f"Trainer(accumulate_grad_batches={trainer.accumulate_grad_batches}) cannot serve two players: leave it "
            f"out, give the loader batches {trainer.accumulate_grad_batches} times as large and the model "
            f"accumulate={trainer.accumulate_grad_batches}, which works through each in that many parts"
        )
    if trainer.precision in ("bf16-true", "16-true"):
        raise ValueError(
            f"Trainer(precision={trainer.precision!r}) would train in half precision throughout, which Adam's small "
            "steps and gradient penalties do not survive: use precision='bf16-mixed'"
        )


def check_strategy(strategy: Strategy, penalised: bool) -> None:
    """Refuse strategies that cannot train two alternating players; make DDP fit for them.

    Each player's backward pass leaves the other's parameters without gradient, so plain DDP has to look for unused
    ones. The batch norm of torch for all processes wants a GPU and has no second derivative: ours takes its place.

    Args:
        strategy: The strategy of the trainer.
        penalised: Whether a penalty differentiates through the discriminator's gradient.

    Raises:
        ValueError: naming the strategy or flag, and what works instead.
    """
    if isinstance(strategy, (FSDPStrategy, ModelParallelStrategy)):
        raise ValueError(
            f"Trainer(strategy=...): {type(strategy).__name__} shards parameters, and no gradient penalty can be "
            "differentiated through shards: use strategy='ddp' or strategy='gan_ddp' (docs/sharded.md tells the rest)"
        )
    if isinstance(strategy, DeepSpeedStrategy) or not isinstance(strategy, (SingleDeviceStrategy, DDPStrategy)):
        raise ValueError(
            f"Trainer(strategy=...): {type(strategy).__name__} cannot train two alternating players; "
            "use one device, strategy='ddp' or strategy='gan_ddp'"
        )
    if isinstance(strategy, DDPStrategy):
        if ddp_arguments(strategy).get("static_graph"):
            raise ValueError("DDPStrategy(static_graph=True) cannot hold for two alternating players: leave it out")
        if isinstance(layer_sync(strategy), TorchSyncBatchNorm) and (penalised or strategy.root_device.type != "cuda"):
            set_layer_sync(strategy, BatchNormSync())
        if not isinstance(strategy, GANDDPStrategy):
            ddp_arguments(strategy)["find_unused_parameters"] = True


def check_classes(model: Any, trainer: Trainer) -> bool:
    """Compare the classes of the data, where they can be known before training, with those of a conditional model.

    Returns:
        Whether all labels were known.

    Raises:
        ValueError: when a conditional model meets data with another number of classes or none, or with labels beyond.
    """
    data: Any = training_source(trainer).instance
    assert model.num_classes is not None
    if hasattr(data, "num_classes") and data.num_classes != model.num_classes:
        alone = " (a folder has them where it holds two class folders or more)"
        none = "no labels" + (alone if getattr(data, "dataset", None) == "folder" else "")
        raise ValueError(
            f"num_classes: the model has {model.num_classes}, the data have {data.num_classes or none}; "
            "give the model and its networks the number of the data, or None to train without labels"
        )
    known = list(_known_labels(data))
    for where, labels in known:
        check_labels(labels, model.num_classes, where)
        if where == "the training data" and not getattr(data, "limit", None):
            _tell_gaps(labels, model.num_classes)
    return bool(known)


def _tell_gaps(labels: Tensor, num_classes: int) -> None:
    """Warn of classes that no image is of."""
    present = set(labels.unique().tolist())
    if missing := [str(n) for n in range(num_classes) if n not in present]:
        rank_zero_warn(
            f"no image of the training data is of class {', '.join(missing[:10])}"
            f"{', ...' if len(missing) > 10 else ''}: what the model draws of it, nothing has taught it; number "
            f"the classes without gaps, 0..{len(present) - 1}, and give num_classes={len(present)}"
        )


def _known_labels(data: Any) -> Iterator[tuple[str, Tensor]]:
    """All labels of a data module of ours, or of tensors in a loader; of other data they are known batch by batch."""
    if hasattr(data, "source"):
        for split, where in (("train", "the training data"), ("val", "the held-out data")):
            labels = getattr(data.source(split), "labels", None)
            if labels is not None:
                yield where, labels
    if isinstance(data, DataLoader) and isinstance(data.dataset, TensorDataset):
        for labels in data.dataset.tensors[1:2]:
            yield "the training data", labels


def check_labels(y: Tensor, num_classes: int, where: str = "the batch") -> None:
    """Refuse labels that are no class of the model, before an index error that names nothing.

    Raises:
        ValueError: naming the labels and the number of classes.
    """
    if y.is_floating_point() or not y.numel():
        return
    low, high = int(y.min()), int(y.max())
    if not 0 <= low <= high < num_classes:
        grow = f", or give the model and its networks num_classes={high + 1}" if low >= 0 else ""
        raise ValueError(
            f"labels {low}..{high} in {where}, but num_classes={num_classes}: number the classes from 0 up without "
            f"gaps{grow}"
        )


def label_of(batch: Any) -> Any:
    """What ``unpack_batch`` takes for the labels of a batch, without its refusals."""
    if isinstance(batch, dict):
        return batch.get("label")
    return batch[1] if isinstance(batch, (list, tuple)) and len(batch) > 1 else None


def peek(trainer: Trainer) -> Any:
    """Two samples of the training data as a batch, or None where looking would cost one; no random state is touched."""
    source = training_source(trainer)
    if not source.is_defined():
        return None
    with isolate_rng():
        loader = source.dataloader()
        if isinstance(loader, Iterator) or isinstance(getattr(loader, "dataset", None), (NoneType, IterableDataset)):
            return None
        if isinstance(loader, DataLoader):  # not asked itself: it would draw from its own generator
            data: Any = loader.dataset
            if loader.batch_sampler is None:
                return loader.collate_fn(data[0])
            items = [data[index] for index in range(min(2, len(data)))]
            return loader.collate_fn(items) if items else None
        return next(iter(copy.copy(loader)), None)


@torch.no_grad()
def check_batch(model: Any, batch: Any) -> None:
    """Play one round without learning, and name what does not fit: shapes, ranges, labels.

    Raises:
        ValueError: naming both sides of the misfit and the remedy.
    """
    real, y = model.unpack_batch(batch)
    few = torch.arange(2 * model.pack, device=real.device) % len(real)
    real, y = real[few], y if y is None else y[few]
    if not real.is_floating_point():
        raise ValueError(f"the batch holds {real.dtype} images: convert them to float in [-1, 1]")
    if model.num_classes is not None and y is not None:
        check_labels(y, model.num_classes)
    rng = torch.Generator(real.device).manual_seed(0)
    dtype = next((p.dtype for p in model.parameters()), real.dtype)  # double, once trained with precision="64-true"
    z, real = model.draw_latents(len(real), rng).to(dtype), real.to(dtype)
    with isolate_rng(), eval_mode(model):
        fake = _call("generator", model.generate, z, model.draw_labels(len(real), rng) if model.uniform_labels else y)
        _check_images(fake, real, trained=model.images_seen > 0)
        answer = _call("discriminator", model.judge, real, y)
    _check_head(model, answer)
    logits, n = logits_of(answer), len(real) // model.pack
    if logits.ndim not in (1, 2, 4) or len(logits) != n or (logits.ndim == 2 and logits.shape[1] != 1):
        packs = "images" if model.pack == 1 else f"packs of {model.pack} images"
        raise ValueError(
            f"discriminator answers {tuple(logits.shape)} to {n} {packs}; it must give one logit for each, "
            f"({n},) or ({n}, 1), or a patch map ({n}, C, H, W)"
        )


def _remedy(fake: Any, real: Tensor) -> str:
    """How shapes of generated images become those of the data, in Python and on the command line."""
    if not isinstance(fake, Tensor) or fake.ndim != 4 or real.ndim != 4:
        return "make their shapes equal"
    wanted = {"channels": real.shape[1], "image_size": real.shape[2]}
    differ = {key: n for key, n, made in zip(wanted, wanted.values(), fake.shape[1:], strict=False) if n != made}
    build = ", ".join(f"{key}={n}" for key, n in differ.items())
    options = " ".join(
        f"--model.{net}.{key} {n}" for key, n in differ.items() for net in ("generator", "discriminator")
    )
    scale = " ".join(f"--data.{key} {fake.shape[1 + list(wanted).index(key)]}" for key in differ)
    return f"build both networks with {build} ({options}), or have the data fit the generator ({scale})"


def _call(name: str, network: Any, x: Tensor, y: Tensor | None) -> Any:
    try:
        return network(x, y)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        shapes = f"{tuple(x.shape)}" + ("" if y is None else f" with labels {tuple(y.shape)}")
        latents = f" (latents are latent_dim={x.shape[1]} wide: give model and generator the same)"
        hint = latents if name == "generator" else ""
        raise ValueError(f"{name} cannot take an input of shape {shapes}{hint}: {error}") from error


def _check_head(model: Any, answer: Any) -> None:
    """Whether the discriminator answers logits alone, or also what the model learns from."""
    heads, name = model.head_width, type(model).__name__
    if heads is None and not isinstance(answer, Tensor):
        raise ValueError(f"the discriminator answers in {len(answer)} parts, and {name} takes logits alone")
    if heads is None:
        return
    if isinstance(answer, Tensor) or len(answer) != 2:
        raise ValueError(
            f"{name} needs a discriminator that answers (logits, head), the head {heads} wide; "
            f"build one of ours with head={heads}"
        )
    if answer[1].shape != (len(answer[0]), heads):
        raise ValueError(
            f"the discriminator's head answers {tuple(answer[1].shape)} to {len(answer[0])} images, and {name} needs "
            f"({len(answer[0])}, {heads}): build it with head={heads}"
        )


def check_precision(model: Any, trainer: Trainer) -> None:
    """Refuse networks of another type than that in which the trainer hands them batches.

    Raises:
        ValueError: naming both, and the precision that goes with the networks.
    """
    flag = {torch.float64: "64-true", torch.bfloat16: "bf16-true", torch.float16: "16-true"}
    for name, parameter in model.named_parameters():
        wanted = flag.get(parameter.dtype)
        if parameter.is_floating_point() and wanted not in (None, trainer.precision):
            raise ValueError(
                f"{name} is {parameter.dtype}, and Trainer(precision={trainer.precision!r}) trains in another type: "
                f"use precision={wanted!r}, or leave the conversion of the model out and let precision= do it"
            )


def _check_images(fake: Tensor, real: Tensor, trained: bool) -> None:
    """Refuse what cannot become right; a network that ends linearly may, and a trained one is not judged."""
    if not isinstance(fake, Tensor) or fake.shape[1:] != real.shape[1:]:
        made = tuple(fake.shape[1:]) if isinstance(fake, Tensor) else type(fake).__name__
        raise ValueError(f"generator makes {made}, the data are {tuple(real.shape[1:])}: {_remedy(fake, real)}")
    if fake.ndim != 4:
        return  # points and other data have no customary range
    low, high = real.min().item(), real.max().item()
    if not -1.001 <= low <= high <= 1.001:
        raise ValueError(f"images of the batch span [{low:.3g}, {high:.3g}]: scale them to [-1, 1]")
    if trained:
        return
    made_low, made_high = fake.min().item(), fake.max().item()
    span = f"generator's images span [{made_low:.3g}, {made_high:.3g}]"
    if not max(-made_low, made_high) <= FAR:
        raise ValueError(f"{span}, the data lie in [-1, 1]: end it with a tanh, or scale its output")
    if made_low >= 0 and made_high - made_low > 1e-3 and low < 0:
        raise ValueError(
            f"{span}, the data [{low:.3g}, {high:.3g}]: with a sigmoid at its end it cannot reach below 0; end it with "
            "a tanh"
        )
    if not -1.001 <= made_low <= made_high <= 1.001:
        rank_zero_warn(f"{span}, the data lie in [-1, 1]: nothing bounds them, and samples are clamped to that range")
    elif made_low < 0 <= low:
        rank_zero_warn(f"{span}, the data [{low:.3g}, {high:.3g}]: are these in [0, 1] instead of [-1, 1]?")

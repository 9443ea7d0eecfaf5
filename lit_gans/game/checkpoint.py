"""Checkpoints that name their class, hold plain values, and rebuild their model with ``weights_only=True``."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from lit_gans.game.layout import lay_out
from lit_gans.game.pool import ImagePool
from lit_gans.game.rebuilding import (
    FORMAT,
    arguments_of_file,
    check_trainer_state,
    contents,
    described,
    explained,
    path_of,
    stay_where_possible,
)
from lit_gans.internals import trainer_of
from lit_gans.preflight.agreement import check_same_step
from lit_gans.runs.checkpoint_files import newest_whole
from lit_gans.runs.trust import is_trusted, trusted_modules

__all__ = ("FORMAT", "begin_with", "describe", "finish_resuming", "load", "plain_arguments", "restore", "statistics_of")

_INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"


def describe(model: Any, checkpoint: dict[str, Any]) -> None:
    """Add the class, the count of images, and what differs between ranks.

    The weights are saved with the mean of all ranks' batch statistics; each rank's own are beside them. Those of
    the averaged generator are estimated first.
    """
    model.settle_average()  # in place: the tensors of the checkpoint are those of the model
    world = model.trainer.world_size
    ours = {
        "format": FORMAT,
        "class_path": path_of(type(model)),
        "images_seen": model.images_seen,
        "seed_offset": model.seed_offset,
        "measured": {name: value.detach().cpu().clone() for name, value in model.measured.items()},
        "world_size": world,
        "arithmetic": arithmetic(model.device),
        "channels_last": model.laid_out,
        "left_out": list(model._left_out),
        "optimizers": [type(optimizer).__name__ for optimizer in model.trainer.optimizers],
    }
    checkpoint["lit_gans"] = ours
    if pools := pools_of(model):
        ours["pools"] = [
            [
                {"images": images.cpu(), "filled": filled.cpu()}
                for images, filled in zip(of_ranks(pool.images, world), of_ranks(pool.filled, world), strict=True)
            ]
            for pool in pools
        ]
    if world > 1 and (buffers := statistics_of(model)):
        ranks = torch.stack(of_ranks(flatten(buffers), world))
        checkpoint["state_dict"] = checkpoint["state_dict"] | unflatten(ranks.mean(0), buffers)
        ours["buffers_of_ranks"] = ranks


def of_ranks(mine: Tensor, world: int) -> list[Tensor]:
    """A copy of what each rank has of a tensor that has the same shape on all."""
    mine = mine.detach().contiguous()
    if world == 1:
        return [mine.clone()]
    ranks = [torch.empty_like(mine) for _ in range(world)]
    dist.all_gather(ranks, mine)
    return ranks


def pools_of(model: Any) -> list[ImagePool]:
    """The pools of generated images that a model keeps."""
    return [module for module in model.modules() if isinstance(module, ImagePool)]


def restore(model: Any, checkpoint: dict[str, Any]) -> None:
    """Go on counting images, with the same noise, each rank with its own batch statistics.

    Raises:
        ValueError: if the checkpoint is another model's, or of a later version; names both sides.
    """
    ours = contents({"state_dict": {}} | checkpoint, "the checkpoint")[0]
    wrote = ours["class_path"]
    if wrote not in [path_of(cls) for cls in type(model).__mro__]:
        raise ValueError(f"the checkpoint was written by {wrote}, not by {path_of(type(model))}")
    model.images_seen, model.seed_offset = ours["images_seen"], ours.get("seed_offset", 0)
    if model.channels_last == "auto":
        model.laid_out = bool(ours.get("channels_last"))
    if model.channels_last:  # what samples and steps are, to the last bit, depends on it
        lay_out(model, torch.channels_last if model.laid_out else torch.contiguous_format)
    kept = ours.get("measured", {})  # else the first rows after resuming would lack them
    model.measured = {name: value.to(model.device) for name, value in kept.items() if isinstance(value, Tensor)}
    if trainer_of(model) is not None and model.trainer.state.fn == TrainerFn.FITTING:
        _resume(model, checkpoint, ours)


def _resume(model: Any, checkpoint: dict[str, Any], ours: dict[str, Any]) -> None:
    model.modernise(checkpoint)
    state, world = checkpoint["state_dict"], model.trainer.world_size
    check_trainer_state(checkpoint, "the checkpoint")
    check_same_step(checkpoint.get("global_step", 0), world)
    _adapt_average(model, state)
    if differs := other_shapes(state, model.state_dict()):
        told = "; ".join(f"{name} is {saved} in the checkpoint, {own} in the model" for name, saved, own in differs[:3])
        raise ValueError(f"the checkpoint is of other networks, {len(differs)} tensors differ: {told}")
    model._optimizers_saved = ours.get("optimizers")
    tell_rounding(ours.get("arithmetic"), arithmetic(model.device))
    before = ours.get("world_size", world)
    if before != world:
        rank_zero_info(
            f"resume: {before} process{'es' * (before > 1)} → {world}: weights, optimizers and the order of the "
            "data go on; noise and batch statistics, which each process has of its own, are no longer bit-equal"
        )
    elif "buffers_of_ranks" in ours:
        model._buffers_of_rank = ours["buffers_of_ranks"][model.global_rank]
    if not all(_is_pool(ranks) for ranks in ours.get("pools", ())):
        raise ValueError("the checkpoint is damaged: its pools of generated images hold no images")
    model._pools_saved = [ranks[model.global_rank % len(ranks)] for ranks in ours.get("pools", ())]


def _is_pool(ranks: Any) -> bool:
    """Whether this is what ``describe`` writes of a pool: images and their number, for each process."""
    if not isinstance(ranks, list) or not all(isinstance(rank, dict) for rank in ranks):
        return False
    return bool(ranks) and all(isinstance(rank.get(name), Tensor) for rank in ranks for name in ("images", "filled"))


def _adapt_average(model: Any, state: dict[str, Tensor]) -> None:
    """Begin the average of the generator that the checkpoint has not, drop the one that the model has not."""
    saved = [name for name in state if name.startswith("g_ema.")]
    if hasattr(model, "g_ema") and not saved:
        rank_zero_info("resume: the checkpoint has no average of the generator: it begins with the generator")
        live = {f"g_ema.{name}": state.get(f"generator.{name}") for name in model.g_ema.state_dict()}
        state.update({name: tensor for name, tensor in live.items() if tensor is not None})  # what lacks is told
    elif saved and not hasattr(model, "g_ema"):
        rank_zero_info("resume: the average of the generator ends here, the model has none")
        for name in saved:
            del state[name]


def statistics_of(model: Any) -> dict[str, Tensor]:
    """Floating-point buffers that are saved, each of which a rank may have its own values of."""
    saved = model.state_dict()
    return {name: buffer for name, buffer in model.named_buffers() if buffer.is_floating_point() and name in saved}


def finish_resuming(model: Any) -> None:
    """What must wait until the strategy is set up, which makes all ranks' buffers equal, and optimizers exist.

    Raises:
        ValueError: if an optimizer cannot read the state of the one that was saved; names both.
    """
    if isinstance(wrapped := model.trainer.strategy.model, DistributedDataParallel):
        wrapped.require_forward_param_sync = False  # would send rank 0's statistics to all, once, on resuming
    if model._buffers_of_rank is not None:
        write_back(model._buffers_of_rank, statistics_of(model))
        model._buffers_of_rank = None
    for pool, saved in zip(pools_of(model), model._pools_saved, strict=False):
        if (kept := len(saved["images"])) not in (0, pool.size):
            raise ValueError(f"the checkpoint's pool is of {kept} images, the model's of {pool.size}: give pool={kept}")
        pool.images, pool.filled = saved["images"].to(model.device), saved["filled"].to(model.device)
    model._pools_saved = ()
    now = [type(optimizer).__name__ for optimizer in model.trainer.optimizers]
    if model._optimizers_saved not in (None, now):
        raise ValueError(
            f"the checkpoint holds the state of {' and '.join(model._optimizers_saved or [])} (discriminator's, "
            f"generator's), the run has {' and '.join(now)}: give the same classes"
        )
    model._optimizers_saved = None


def load(
    cls: Any,
    checkpoint_path: Any,
    map_location: Any,
    hparams_file: Any,
    strict: bool | None,
    trust: str | Iterable[str],
    **kwargs: Any,
) -> Any:
    """Load a model; the arguments are those of ``GameModule.load_from_checkpoint``."""
    path, checkpoint = newest_whole(checkpoint_path, map_location or stay_where_possible)
    ours, saved, state = contents(checkpoint, path)
    saved = saved if hparams_file is None else arguments_of_file(hparams_file)
    trust = (*trusted_modules(trust), *(() if is_trusted(cls.__module__, ["lit_gans"]) else (cls.__module__,)))
    plain = {name: value for name, value in saved.items() if name not in kwargs and not name.startswith("_")}
    description = described(cls, ours["class_path"], plain, path, trust)
    if lost := [name for name in ours.get("left_out", ()) if name not in kwargs]:
        rank_zero_warn(
            f"{path} was written with {' and '.join(lost)} that have no form as plain values: they are "
            f"not there; give {', '.join(f'{name}=...' for name in lost)}"
        )
    if lost := [name for name in ("generator", "discriminator") if name not in plain.keys() | kwargs.keys()]:
        raise ValueError(
            f"{path} does not say how to build its {' and '.join(lost)}, whose classes keep no init_args: give "
            f"{description.cls.__name__}.load_from_checkpoint(path, {', '.join(f'{name}=...' for name in lost)})"
        )
    description.cls.modernise(checkpoint)
    description.check_sizes(state, strict is not False, **kwargs)
    with explained(path, description.cls):
        model = description.build(**kwargs)
        model.on_load_checkpoint(checkpoint)
        model.load_state_dict(state, strict=model.strict_loading if strict is None else strict)
    model.hparams.update(plain)
    device = next((tensor.device for tensor in state.values()), torch.device("cpu"))
    return model.to(device)


def begin_with(model: Any, checkpoint_path: Any) -> str:
    """Give a model the weights of a checkpoint to begin with, and nothing else of it: a second stage, or fine-tuning.

    The generator gets the averaged weights, where there are such, and so does its average here. The discriminator gets
    its own, if it has learned and has the same shapes; else it stays as it is.

    Args:
        model: Whose networks get the weights.
        checkpoint_path: Of a model whose generator has the same tensors.

    Returns:
        What was taken, in a sentence.

    Raises:
        ValueError: if the generators differ; names the first tensors.
    """
    path, checkpoint = newest_whole(checkpoint_path, "cpu")
    _, saved, state = contents(checkpoint, path)
    parts = {
        name: {key.removeprefix(f"{name}."): tensor for key, tensor in state.items() if key.startswith(f"{name}.")}
        for name in ("g_ema", "generator", "discriminator")
    }
    source = "g_ema" if parts["g_ema"] else "generator"
    if differs := other_shapes(parts[source], model.generator.state_dict()):
        name, there, here = differs[0]
        raise ValueError(
            f"{path} holds another generator, {len(differs)} tensors differ: {name} is {there} there, {here} here"
        )
    model.generator.load_state_dict(parts[source])
    if hasattr(model, "g_ema"):
        model.g_ema.load_state_dict(parts[source])
    rested = bool(saved.get("content_only"))
    if rested or other_shapes(parts["discriminator"], model.discriminator.state_dict()):
        rival = "untrained" if rested else "of other shapes there"
        told = f"the discriminator, which is {rival}, begins anew"
    else:
        model.discriminator.load_state_dict(parts["discriminator"])
        told = "the discriminator too"
    model.begun = True
    averaged = "averaged " if source == "g_ema" else ""
    return f"begins with the {averaged}weights of {path}; {told}"


def other_shapes(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> list[tuple[str, str, str]]:
    """Tensors that have another shape in two networks, or are in one alone: name, and both shapes or "not"."""
    there, here = ({name: str(tuple(tensor.shape)) for name, tensor in network.items()} for network in (theirs, ours))
    pairs = [(name, there.get(name, "not"), here.get(name, "not")) for name in there | here]
    return [(name, saved, own) for name, saved, own in pairs if saved != own]


def plain_arguments(model_class: type, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the arguments of a model into numbers, strings, lists and dicts; leave out what has no such form.

    Networks that keep their ``init_args`` (ours do), classes, partials and clipping rules become
    ``{"class_path": ..., "init_args": ...}``, as in a config file. When both networks have that form, the model can be
    loaded with nothing but its checkpoint; otherwise ``load_from_checkpoint`` must be given the networks.

    Args:
        model_class: Recorded with the arguments where these suffice to rebuild the model.
        arguments: As given to ``model_class``.
    """
    plain = {name: _plain(value) for name, value in arguments.items()}
    plain = {name: value for name, value in plain.items() if value is not _plain}
    if "_instantiator" not in plain and {"generator", "discriminator"} <= plain.keys():
        plain |= {"_class_path": path_of(model_class), "_instantiator": _INSTANTIATOR}
    return plain


def _plain(value: Any) -> Any:
    """The plain form of a value, or this function itself where there is none."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (list, tuple)):
        items = [_plain(item) for item in value]
        return _plain if _plain in items else items
    if isinstance(value, Mapping):
        entries = {key: _plain(item) for key, item in value.items()}
        return _plain if _plain in entries.values() else entries
    if isinstance(value, type):
        return {"class_path": path_of(value)}
    if isinstance(value, partial) and not value.args:
        return _spec(value.func, value.keywords)
    if is_dataclass(value) and not isinstance(value, type):
        return _spec(type(value), asdict(value))
    return _spec(type(value), getattr(value, "init_args", None))


def _spec(cls: Any, init_args: Mapping[str, Any] | None) -> Any:
    entries = _plain(init_args) if isinstance(init_args, Mapping) else _plain
    if entries is _plain or not isinstance(cls, type) or "<locals>" in cls.__qualname__:
        return _plain
    return {"class_path": path_of(cls), "init_args": entries}


def arithmetic(device: torch.device) -> dict[str, Any]:
    """What decides, besides the numbers, in which order they are added up, and so how the sums are rounded."""
    threads = {"threads": torch.get_num_threads()} if device.type == "cpu" else {}
    return {"device": device.type, "torch": str(torch.__version__), **threads}


def tell_rounding(before: Any, now: dict[str, Any]) -> None:
    """Say what of it has changed since the checkpoint was written; one that does not tell is taken to be the same."""
    known = before if isinstance(before, dict) else {}
    pairs = [(name, str(known[name]), str(value)) for name, value in now.items() if name in known]
    if changed := [f"{name} {was} → {value}" for name, was, value in pairs if was != value]:
        rank_zero_info(
            f"resume: {', '.join(changed)}: all goes on as it was, but sums are rounded otherwise, so that the "
            "run is no longer equal bit by bit to one that was never stopped"
        )


def flatten(tensors: Mapping[str, Tensor]) -> Tensor:
    """All values in one tensor, in double precision."""
    return torch.cat([tensor.flatten().double() for tensor in tensors.values()])


def write_back(flat: Tensor, tensors: Mapping[str, Tensor]) -> None:
    """Put values from where :func:`flatten` laid them into the tensors they are of."""
    for name, value in unflatten(flat, tensors).items():
        tensors[name].copy_(value)


def unflatten(flat: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cut a flat tensor into parts of the shapes and types of ``like``."""
    parts = flat.split([tensor.numel() for tensor in like.values()])
    return {name: part.view_as(like[name]).to(like[name]) for name, part in zip(like, parts, strict=True)}

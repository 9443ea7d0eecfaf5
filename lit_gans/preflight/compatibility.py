"""What cannot go well together, said before training starts; the documentation's table of it is made from ``RULES``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from lit_gans.functional import input_gradient, logits_of
from lit_gans.internals import layer_sync, training_source
from lit_gans.modules import eval_mode, is_spectral

__all__ = ("RULES", "Rule", "batch_size", "check_compatibility", "compatibility_table")

FEW_IMAGES = 8  # the mean of fewer is off by more than a third of the standard deviation
_SQUASHING = (nn.Sigmoid, nn.Hardsigmoid, nn.LogSigmoid, nn.Softmax, nn.LogSoftmax)


@dataclass(frozen=True)
class Rule:
    """One thing that does not go well with another.

    Args:
        key: Name of the rule, in tests.
        what: Its name in the table.
        level: "error" stops before training, "warning" does not.
        reason: What would happen, as the end of a sentence.
        remedy: What to do instead, as an order.
        found: Names the offending layer or argument of a model and its trainer; None if there is none.
        needs_optimizers: Whether ``found`` looks at the trainer's optimizers, which exist only after ``setup``.
    """

    key: str
    what: str
    level: Literal["error", "warning"]
    reason: str
    remedy: str
    found: Callable[[Any, Trainer], str | None]
    needs_optimizers: bool = False


def check_compatibility(model: Any, trainer: Trainer, optimizers: bool = False) -> None:
    """Warn of what will not go well, and refuse what cannot; neither weights nor random states change.

    Args:
        model: The model that is about to be trained.
        trainer: That is to train it.
        optimizers: Whether to look at the trainer's optimizers, once they exist; otherwise, at all else.

    Raises:
        ValueError: with what was found, the reason and the remedy.
    """
    for rule in RULES:
        if rule.needs_optimizers == optimizers and (found := rule.found(model, trainer)) is not None:
            sentence = f"{found}: {rule.reason}; {rule.remedy}"
            if rule.level == "error":
                raise ValueError(sentence)
            rank_zero_warn(sentence)


def compatibility_table() -> str:
    """The rules as a Markdown table."""
    rows = [f"| {rule.what} | {rule.level} | {rule.reason} | {rule.remedy} |" for rule in RULES]
    return "\n".join(["| together | | why not | instead |", "|---|---|---|---|", *rows])


# what several rules look for


def _named(layers: list[tuple[str, nn.Module]]) -> str:
    (name, layer), *others = layers
    return f"{name} ({type(layer).__name__}" + (f" and {len(others)} more)" if others else ")")


def _batch_norms(model: Any, *players: Literal["discriminator", "generator"]) -> list[tuple[str, nn.Module]]:
    """Layers that normalise by the statistics of the batch; not those that were frozen with ``eval()``."""
    return [
        (name, layer)
        for player in players
        for name, layer in model.network(player).named_modules(prefix=player)
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and (layer.training or layer.running_mean is None)
    ]


def _penalty(model: Any, *players: str) -> str | None:
    """Whose loss differentiates through a gradient: the paper's, or that of a regularizer of these players."""
    if model.traits.double_backward:
        return type(model).__name__
    return _added_penalty(model, *players)


def _added_penalty(model: Any, *players: str) -> str | None:
    """The first regularizer of these players that differentiates through a gradient."""
    penalties = (r for r in model.regularizers if r.double_backward and r.player in players)
    return next((type(regularizer).__name__ for regularizer in penalties), None)


def _synchronised(layer: nn.Module, trainer: Trainer) -> bool:
    """Whether batch norm uses the images of all processes."""
    return isinstance(layer, nn.SyncBatchNorm) or layer_sync(trainer.strategy) is not None


def batch_size(trainer: Trainer) -> int | None:
    """Images in a training batch of one process; None where neither data module nor loader says so."""
    source = training_source(trainer)
    owner: Any = source.instance  # a data module, a loader, or the model
    if not hasattr(owner, "batch_size") and source.is_defined():
        with isolate_rng():
            owner = source.dataloader()
    sizes = (getattr(told, "batch_size", None) for told in (owner, getattr(owner, "batch_sampler", None)))
    return next((size for size in sizes if isinstance(size, int) and size > 0), None)


# the rules, one function each


def _batch_norm_and_penalty(model: Any, trainer: Trainer) -> str | None:
    penalty, layers = _penalty(model, "discriminator"), _batch_norms(model, "discriminator")
    return f"{_named(layers)} with the gradient penalty of {penalty}" if penalty and layers else None


def _batch_norm_of_few(model: Any, trainer: Trainer) -> str | None:
    layers = _batch_norms(model, "discriminator", "generator")
    size = batch_size(trainer) if layers else None
    if size is None:
        return None
    part = -(-size // model.accumulate)
    least = (size - 1) % part + 1  # the last part may be smaller than the others
    shares = {True: least * trainer.world_size, False: least}
    layers = [(name, layer) for name, layer in layers if shares[_synchronised(layer, trainer)] < FEW_IMAGES]
    parts = f" in accumulate={model.accumulate} parts, the smallest of {least}" if model.accumulate > 1 else ""
    return f"{_named(layers)} on batches of {size} images{parts}" if layers else None


def _batch_norm_in_processes(model: Any, trainer: Trainer) -> str | None:
    layers = _batch_norms(model, "discriminator", "generator") if trainer.world_size > 1 else []
    layers = [(name, layer) for name, layer in layers if not _synchronised(layer, trainer)]
    return f"{_named(layers)} in {trainer.world_size} processes" if layers else None


@torch.no_grad()
def _squashed_logits(model: Any, trainer: Trainer) -> str | None:
    """A layer whose answer is the discriminator's: the last one registered may as well be part of an attention."""
    if not type(model).discriminator_loss.__module__.startswith("lit_gans."):
        return None  # a loss of one's own may take probabilities
    named = model.discriminator.named_modules(prefix="discriminator")
    names: dict[nn.Module, str] = {
        layer: _named([(name, layer)]) for name, layer in named if isinstance(layer, _SQUASHING)
    }
    answers = dict[nn.Module, Tensor]()
    hooks = [layer.register_forward_hook(lambda layer, x, answer: answers.update({layer: answer})) for layer in names]
    try:
        logits = _answer(model) if names else None
    except (RuntimeError, TypeError, ValueError, LookupError):
        return None  # what does not fit is named by check_batch
    finally:
        for hook in hooks:
            hook.remove()
    for layer, answer in answers.items():
        if logits is not None and torch.equal(answer.flatten(), logits.flatten()):
            return names[layer]
    return None


@torch.no_grad()
def _samples(model: Any) -> tuple[Tensor, Tensor | None]:
    """Two packs of generated images, and their labels."""
    with isolate_rng(), eval_mode(model):
        images: tuple[Tensor, Tensor | None] = model.make(model.trial_inputs(2 * model.pack))
    return images


def _answer(model: Any) -> Tensor:
    """What the discriminator says to them."""
    x, y = _samples(model)
    with isolate_rng(), eval_mode(model):
        return logits_of(model.judge(x, y))


def _seen_in_the_images(model: Any, trainer: Trainer) -> None:
    """The range of the generator's images is compared with that of the data by ``checks.check_batch``."""


def _spectral_norm_and_clipping(model: Any, trainer: Trainer) -> str | None:
    bound = model.traits.weight_bound
    for name, layer in model.discriminator.named_modules(prefix="discriminator") if bound is not None else ():
        if is_spectral(layer):
            return f"spectral norm of {name.partition('.parametrizations')[0]} with clip={bound}"
    return None


def _fused_and_clip(model: Any, trainer: Trainer) -> str | None:
    """Lightning leaves the gradients of such an optimizer scaled when we clip them."""
    for letter, clip, optimizer in zip("dg", model.clips, trainer.optimizers, strict=False):
        unscales = getattr(optimizer, "_step_supports_amp_scaling", False)
        if trainer.precision == "16-mixed" and clip is not None and unscales:
            return f"{letter}_optimizer, a fused {type(optimizer).__name__}, with {letter}_clip under 16-mixed"
    return None


def _momentum_and_clipping(model: Any, trainer: Trainer) -> str | None:
    bound = model.traits.weight_bound
    for optimizer in trainer.optimizers[:1] if bound is not None else ():
        for group in optimizer.param_groups:
            betas = group.get("betas")
            momenta = {"momentum": group.get("momentum"), "betas[0]": betas[0] if isinstance(betas, tuple) else None}
            for name, momentum in momenta.items():
                if isinstance(momentum, (int, float)) and momentum > 0:
                    return f"d_optimizer, {type(optimizer).__name__} with {name}={momentum}, with clip={bound}"
    return None


def _half_precision_and_penalty(model: Any, trainer: Trainer) -> str | None:
    penalty = _penalty(model, "discriminator", "generator") if trainer.precision == "16-mixed" else None
    return f"precision='16-mixed' with the gradient penalty of {penalty}" if penalty else None


def _lazy_beyond_the_end(model: Any, trainer: Trainer) -> str | None:
    for regularizer in model.regularizers if trainer.max_steps > 0 and not getattr(trainer, "fast_dev_run", 0) else ():
        turns = model.n_critic if regularizer.player == "generator" else 1
        if regularizer.every > 1 and regularizer.every >= trainer.max_steps // turns:
            lazy = f"{type(regularizer).__name__}(every={regularizer.every})"
            return f"{lazy}, due every {regularizer.every * turns} steps, with max_steps={trainer.max_steps}"
    return None


def _indivisible_batch(model: Any, trainer: Trainer) -> str | None:
    size = batch_size(trainer) if model.pack > 1 else None
    return f"pack={model.pack} and batches of {size} images" if size and size % model.pack else None


def _last_batch(model: Any, trainer: Trainer) -> str | None:
    """A last batch, smaller than the others, that cannot be learned from."""
    least, source = model.traits.least_batch, training_source(trainer)
    if (model.pack == 1 and least == 1) or not source.is_defined():
        return None
    with isolate_rng():
        loader: Any = source.dataloader()
    sampler = getattr(loader, "batch_sampler", None)
    size = batch_size(trainer)
    if getattr(loader, "drop_last", True) or getattr(sampler, "drop_last", False) or not size:
        return None
    data: Any = getattr(loader, "dataset", None)
    if not hasattr(data, "__len__") or isinstance(data, IterableDataset):
        return None
    share = len(data) // loader.world if hasattr(loader, "world") else -(-len(data) // trainer.world_size)
    last, limits = share % size, (trainer.max_steps, trainer.limit_train_batches)
    met = all(limit < 0 or limit * size >= share for limit in limits if isinstance(limit, int))
    if not last or not met or (last % model.pack == 0 and last >= least):
        return None
    images = "1 image" if last == 1 else f"{last} images"
    needed = f"packs of {model.pack}" if model.pack > 1 else f"at least {least}"
    return f"a last batch of {images}, where {type(model).__name__} needs {needed}"


def _opposed_slopes(model: Any, trainer: Trainer) -> str | None:
    targets = {type(r).__name__: r.slope_target for r in model.regularizers if r.slope_target is not None}
    if len(set(targets.values())) < 2:
        return None
    return " and ".join(f"{name} (a slope of {target:g})" for name, target in targets.items())


def _own_and_added_slopes(model: Any, trainer: Trainer) -> str | None:
    own = model.traits.slope_target
    for regularizer in model.regularizers if own is not None else ():
        if regularizer.slope_target not in (None, own):
            added = f"{type(regularizer).__name__} (a slope of {regularizer.slope_target:g})"
            return f"{added} on {type(model).__name__} (a slope of {own:g})"
    return None


def _adaptive_without_sign(model: Any, trainer: Trainer) -> str | None:
    adaptive = model.adapts and not model.traits.tells_by_sign
    return f"{type(model.augment).__name__} on {type(model).__name__}" if adaptive else None


def _leads_to_an_error(tensor: Tensor) -> bool:
    """Whether its graph has the node that torch puts where a function can be differentiated but once."""
    seen, open_nodes = set(), [tensor.grad_fn]
    while open_nodes:
        node = open_nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name().endswith("Error"):
            return True
        open_nodes.extend(parent for parent, _ in node.next_functions)
    return False


def _no_second_derivative(model: Any, trainer: Trainer) -> str | None:
    """Differentiate the slope at two samples once more, without learning; of both networks, where it is asked for."""
    if (penalty := _penalty(model, "discriminator")) is not None:
        x, y = _samples(model)
        if (why := _differentiated_twice(model, model.discriminator, model.judge, x, y)) is not None:
            return f"the gradient penalty of {penalty} and {type(model.discriminator).__name__} ({why})"
    penalty = _penalty_of_generator(model)
    if penalty is not None and (why := _differentiated_twice(model, model.generator, *_path(model))) is not None:
        return f"the path lengths of {penalty} and {type(model.generator).__name__} ({why})"
    return None


def _path(model: Any) -> tuple[Callable[..., Tensor], Tensor, Tensor | None]:
    """The function whose slopes are path lengths, and where: of w if the generator has it, else of z."""
    generator: Any = model.generator
    z, y = model.trial_inputs(2 * model.pack)
    if not hasattr(generator, "synthesis"):
        return model.generate, z, y
    with torch.no_grad(), isolate_rng(), eval_mode(model):
        w = generator.mapping(z) if y is None else generator.mapping(z, y)
    return generator.synthesis, w[:, None].repeat(1, generator.num_ws, 1), None


def _penalty_of_generator(model: Any) -> str | None:
    """Whose loss differentiates through a gradient of the generator."""
    if model.traits.g_double_backward:
        return type(model).__name__
    return _added_penalty(model, "generator")


def _differentiated_twice(
    model: Any, network: nn.Module, function: Callable[..., Tensor], x: Tensor, y: Tensor | None
) -> str | None:
    """Why a network's slope has no gradient; None if it has, or what does not fit is for ``check_batch`` to name."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    try:
        with isolate_rng(), eval_mode(model), torch.enable_grad():
            slopes = input_gradient(function, x.detach().requires_grad_(), y)
            if _leads_to_an_error(slopes):
                raise RuntimeError("one of its functions is once_differentiable")
            if parameters:
                torch.autograd.grad(slopes.square().sum(), parameters, allow_unused=True)
    except RuntimeError as error:
        if any(word in str(error) for word in ("once_differentiable", "derivative for", "not implemented")):
            return str(error).partition("\n")[0]
    return None


_OTHER_NORM = "norm: layer, group, instance or null"

RULES = (
    Rule(
        "batch_norm_and_penalty",
        "batch norm in the discriminator and a gradient penalty",
        "warning",
        "a sample's slope then depends on the rest of its batch",
        f"give the discriminator {_OTHER_NORM}",
        _batch_norm_and_penalty,
    ),
    Rule(
        "batch_norm_of_few",
        f"batch norm and batches, or their `accumulate` parts, of fewer than {FEW_IMAGES} images",
        "warning",
        "so few images make a noisy mean and variance",
        f"use larger batches or fewer parts, or give the network {_OTHER_NORM}",
        _batch_norm_of_few,
    ),
    Rule(
        "batch_norm_in_processes",
        "batch norm and several processes",
        "warning",
        "each normalises by its own images alone, so that their number changes the result",
        f"use Trainer(sync_batchnorm=True), or give the network {_OTHER_NORM}",
        _batch_norm_in_processes,
    ),
    Rule(
        "squashed_logits",
        "a sigmoid or softmax at the end of the discriminator and a loss of ours",
        "error",
        "all our losses take logits as they are",
        "leave it out",
        _squashed_logits,
    ),
    Rule(
        "range",
        "a sigmoid or ReLU at the end of the generator and data in [-1, 1]",
        "error",
        "it can draw nothing below 0",
        "end it with a tanh",
        _seen_in_the_images,
    ),
    Rule(
        "spectral_norm_and_clipping",
        "spectral norm in the critic and clipping of its weights",
        "warning",
        "the norm divides out the scale that clipping bounds",
        "use one of the two",
        _spectral_norm_and_clipping,
    ),
    Rule(
        "fused_and_clip",
        "a fused optimizer, `g_clip` or `d_clip`, and 16-mixed precision",
        "error",
        "it unscales within its step, so that gradients would be clipped while multiplied by the loss scale",
        "leave out fused=True, or use precision='bf16-mixed'",
        _fused_and_clip,
        needs_optimizers=True,
    ),
    Rule(
        "momentum_and_clipping",
        "momentum in the critic's optimizer and clipping of its weights",
        "warning",
        "training becomes unstable at times (Arjovsky et al. 2017, section 4)",
        "use RMSprop, or Adam with betas=(0.0, 0.9)",
        _momentum_and_clipping,
        needs_optimizers=True,
    ),
    Rule(
        "half_precision_and_penalty",
        "a gradient penalty and 16-mixed precision",
        "warning",
        "steps in which a scaled gradient overflows are skipped without a word, and a steep penalty adds to them",
        "use precision='bf16-mixed'",
        _half_precision_and_penalty,
    ),
    Rule(
        "lazy_beyond_the_end",
        "a regularizer's `every` (times `n_critic` for the generator's) and as few `max_steps`",
        "warning",
        "it is evaluated once at most",
        "give it a smaller every, or train longer",
        _lazy_beyond_the_end,
    ),
    Rule(
        "indivisible_batch",
        "packed samples and batches that are no multiple of them",
        "error",
        "the last samples of a batch would fill no pack",
        "change the batch size, or `pack`",
        _indivisible_batch,
    ),
    Rule(
        "last_batch",
        "an incomplete last batch that fills no pack, or is too small for its loss",
        "error",
        "training would end in it",
        "leave it out with drop_last=True (--data.drop_last true), or change the batch size",
        _last_batch,
    ),
    Rule(
        "opposed_slopes",
        "penalties that hold the discriminator at different slopes (R1 or R2 and a two-sided `GradientPenalty`)",
        "error",
        "no discriminator can please both",
        "leave one of them out, or give `GradientPenalty` one_sided=True",
        _opposed_slopes,
    ),
    Rule(
        "own_and_added_slopes",
        "a paper's gradient penalty and an add-on that holds the discriminator at another slope (WGANGP and R1)",
        "warning",
        "no discriminator can please both",
        "leave the add-on out, or take a paper without such a penalty",
        _own_and_added_slopes,
    ),
    Rule(
        "adaptive_without_sign",
        "ADA and a paper whose logits do not tell real from generated by their sign",
        "warning",
        "its p follows the sign of the logits of real images, which says nothing here",
        "use DiffAugment, or a fixed p: ADA(p=0.3, kimg=1e9)",
        _adaptive_without_sign,
    ),
    Rule(
        "no_second_derivative",
        "a gradient penalty, or path lengths, and a network with a layer that can be differentiated but once",
        "error",
        "the penalty's own gradient is the derivative of a derivative",
        "exchange the layer, or leave the penalty out (spectral norm, SNGAN, can take its place in a discriminator)",
        _no_second_derivative,
    ),
)

"""Which parameters an optimizer moves, and what they are called."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ("Player", "find_players", "total_norm", "values_of")


@dataclass(frozen=True)
class Player:
    """An optimizer and the parameters it moves.

    Args:
        name: The attribute of the module that owns them.
        optimizer: Torch's optimizer, not Lightning's wrapper.
        names: Names of the parameters, as in ``named_parameters``.
        parameters: The parameters, in the order of their names.
    """

    name: str
    optimizer: Optimizer
    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]

    def gradients(self) -> list[Tensor]:
        """The gradients that exist; of sparse gradients, their values."""
        found = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        return [values_of(gradient) for gradient in found]


def values_of(gradient: Tensor) -> Tensor:
    """All elements of a gradient that may differ from zero."""
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def find_players(module: nn.Module, optimizers: Sequence[Optimizer]) -> list[Player]:
    """One player an optimizer, in their order.

    Each is named by the attribute that owns its parameters, ``generator``; of several by all, ``encoder+decoder``;
    where two optimizers share an attribute, by the path on which they part, ``nets.a`` and ``nets.b``.
    """
    known = {id(parameter): name for name, parameter in module.named_parameters()}
    players = []
    for optimizer in optimizers:
        parameters = tuple(parameter for group in optimizer.param_groups for parameter in group["params"])
        names = tuple(known.get(id(parameter), f"parameter_{n}") for n, parameter in enumerate(parameters))
        players.append((optimizer, names, parameters))
    titles = [_owners(names, 1) for _, names, _ in players]
    for depth in range(2, 8):
        twice = {title for title, count in Counter(titles).items() if count > 1}
        titles = [
            _owners(names, depth) if title in twice else title
            for title, (_, names, _) in zip(titles, players, strict=True)
        ]
    seen: Counter[str] = Counter()
    found = []
    for title, (optimizer, names, parameters) in zip(titles, players, strict=True):
        seen[title] += 1
        found.append(Player(title if seen[title] == 1 else f"{title}_{seen[title]}", optimizer, names, parameters))
    return found


def _owners(names: Sequence[str], depth: int) -> str:
    """The first ``depth`` steps of the paths to the parameters."""
    owners = dict.fromkeys(".".join(name.split(".")[:depth]) for name in names)
    return "+".join(owners) if len(owners) <= 3 else f"{next(iter(owners))}+{len(owners) - 1}_more"


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm over all elements of all tensors, a scalar on the device of the first; nothing is waited for."""
    if not tensors:
        return torch.zeros(())
    norms = torch._foreach_norm(list(tensors))
    device = norms[0].device
    if device.type == "cpu":  # where nothing has to be waited for, numbers add up faster than tensors
        return torch.tensor(math.sqrt(sum(norm.item() ** 2 for norm in norms)))
    return torch.linalg.vector_norm(torch.stack([norm.to(device, torch.float32) for norm in norms]))

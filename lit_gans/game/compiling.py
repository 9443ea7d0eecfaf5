"""Networks run compiled where torch can."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from types import FunctionType
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import is_parametrized
from torch.utils._pytree import tree_leaves

from lit_gans.functional import input_gradient

__all__ = (
    "CompiledNetwork",
    "compile_networks",
    "compiled_input_gradient",
    "differentiated_twice",
)

_BACKEND = "inductor"
_copies = count()


class Compiled:
    """A function that runs as one compiled graph, or, from the first failure to compile it on, as it is.

    Args:
        function: Of tensors. Random numbers of a ``torch.Generator`` must be drawn before.
        name: What the message of a failure calls it.
        within: Makes a context that each call runs in.
        settings: Of ``torch._dynamo.config``, for this function alone.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        within: Callable[[], AbstractContextManager[None]],
        **settings: Any,
    ) -> None:
        self.function, self.name, self.within = function, name, within
        self.settings = {"optimize_ddp": False, **settings}  # it would cut graphs into DDP's buckets
        # torch counts and limits recompilations by code object, which all instances of a function share
        code = function.__code__.replace(co_name=f"{function.__name__}_{next(_copies)}")
        own = FunctionType(code, function.__globals__, code.co_name, function.__defaults__, function.__closure__)
        self.run: Callable[..., Any] = torch.compile(own, fullgraph=True, backend=_backend)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function's result. What is compiled has not begun to run when compilation fails."""
        with self.within():
            return self._called(*args, **kwargs)

    def _called(self, *args: Any, **kwargs: Any) -> Any:
        try:
            with torch._dynamo.config.patch(self.settings):
                return self.run(*args, **kwargs)
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            rank_zero_info(f"compile: {self.name} stays eager: {_reason(error)}")
            self.run = self.function
        return self.function(*args, **kwargs)

    @property
    def failed(self) -> bool:
        """Whether it stays eager."""
        return self.run is self.function


class CompiledNetwork:
    """What calls of a network go through once it is compiled.

    Eager stay: a network in eval mode, whose batches come in many sizes; and calls that may be differentiated twice,
    which compiled code cannot be: their input and the weights both require gradients, or they are made within
    ``differentiated_twice``. What a penalty makes of them is compiled as a whole instead, ``input_gradient``.

    Args:
        network: The network that is compiled.
        name: Name of the player, for messages.
        twice: Whether frozen weights, too, may be part of a penalty.
    """

    def __init__(self, network: nn.Module, name: str, twice: bool = False) -> None:
        def forward(*args: Any, **kwargs: Any) -> Any:
            return network._call_impl(*args, **kwargs)

        self.network, self.name, self.twice = network, name, twice
        self.norms = spectral_norms(network)
        self.forward = Compiled(forward, f"the {name}", self._iterated)
        self.input_gradient = Compiled(input_gradient, "the gradient penalty", self._iterated, trace_autograd_ops=True)
        self.weights_twice = False  # whether its weights are differentiated twice just now
        self._told = set[str]()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The network's answer."""
        if not self.network.training:
            return self.forward.function(*args, **kwargs)
        if self.weights_twice:
            self._tell("while the generator is differentiated through its steps")
            return self.forward.function(*args, **kwargs)
        if self._may_be_penalised(args, kwargs):
            if not self.input_gradient.failed:
                self._tell("where its input requires gradients, of which a penalty may be taken")
            return self.forward.function(*args, **kwargs)
        return self.forward(*args, **kwargs)

    @contextmanager
    def _iterated(self) -> Iterator[None]:
        """Spectral norm's power iterations, made before the compiled code runs, and not in it.

        Compiled code keeps for its backward pass not the copies of the vectors that eager code makes, but the vectors
        themselves, which whoever next asks for the weight, in the same update perhaps, would then change under it.
        """
        for norm, weight in self.norms:
            with torch.no_grad():
                norm._power_method(norm._reshape_weight_to_matrix(weight), norm.n_power_iterations)
            norm.training = False
        try:
            yield
        finally:
            renew(self.norms)
            for norm, _ in self.norms:
                norm.training = True

    def _may_be_penalised(self, *inputs: Any) -> bool:
        if not torch.is_grad_enabled():
            return False
        if not any(isinstance(x, Tensor) and x.requires_grad for x in tree_leaves(inputs)):
            return False
        return self.twice or any(parameter.requires_grad for parameter in self.network.parameters())

    def _tell(self, when: str) -> None:
        if when not in self._told:
            self._told.add(when)
            rank_zero_info(
                f"compile: the {self.name} stays eager {when}: torch cannot differentiate compiled code twice"
            )


@contextmanager
def differentiated_twice(network: nn.Module) -> Iterator[None]:
    """Within it a compiled network runs eagerly, so that what it says can be differentiated twice by its weights."""
    compiled: Any = network._compiled_call_impl
    if not isinstance(compiled, CompiledNetwork):
        yield
        return
    compiled.weights_twice = True
    try:
        yield
    finally:
        compiled.weights_twice = False


def spectral_norms(network: nn.Module) -> list[tuple[Any, Tensor]]:
    """Spectral norms of a network's layers that iterate, each with the weight that it divides."""
    lists = [part for layer in network.modules() if is_parametrized(layer) for part in layer.parametrizations.values()]  # type: ignore[operator]
    norms = [(norm, one.original) for one in lists for norm in one if isinstance(norm, _SpectralNorm)]
    return [(norm, weight) for norm, weight in norms if weight.ndim > 1]


def renew(norms: list[tuple[Any, Tensor]]) -> None:
    """Give each norm vectors of its own to change: those it has may be part of a graph."""
    for norm, _ in norms:
        norm._u, norm._v = norm._u.clone(), norm._v.clone()


def _backend(graph: Any, inputs: Any) -> Callable[..., Any]:
    """Inductor, with eager's dropout, and a backward pass that may run again and is compiled at once.

    A failure to compile it can be caught only then.
    """
    settings = {"force_non_lazy_backward_lowering": True, "donated_buffer": False}
    known = {name: value for name, value in settings.items() if hasattr(torch._functorch.config, name)}
    with torch._functorch.config.patch(known), torch._inductor.config.patch(fallback_random=True):
        return torch._dynamo.lookup_backend(_BACKEND)(graph, inputs)


def _reason(error: Exception) -> str:
    """Kind, title and explanation of a failure, and the last place in the user's code that it names, in one line."""
    title, *lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason given"]
    explained = [line.removeprefix("Explanation: ") for line in lines if line.startswith("Explanation: ")]
    places = [line for line in lines if line.startswith("File ")]
    return "; ".join([f"{type(error).__name__}: {title}", *explained[:1], *places[-1:]])


def compile_networks(model: Any) -> None:
    """Compile both networks in place; state and keys stay as they are. Again on the same networks, it does nothing."""
    twice = any(p.player == "generator" and p.double_backward and p.asks_discriminator for p in model.regularizers)
    for name, network in (("generator", model.generator), ("discriminator", model.discriminator)):
        if not isinstance(network._compiled_call_impl, CompiledNetwork):
            # where nn.Module.compile() keeps its own; copies and pickles of a network leave it out
            network._compiled_call_impl = CompiledNetwork(network, name, twice)


def compiled_input_gradient(network: nn.Module) -> Callable[..., Tensor] | None:
    """How a penalty of this network's gradient runs compiled; None where it does not."""
    compiled: Any = network._compiled_call_impl
    known = isinstance(compiled, CompiledNetwork) and hasattr(torch._dynamo.config, "trace_autograd_ops")
    return compiled.input_gradient if known and network.training else None

"""Networks run compiled where torch can."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import reduce
from itertools import count
from operator import add
from types import FunctionType
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import is_parametrized
from torch.utils._pytree import tree_leaves

from lit_gans.functional import Batch, input_gradient
from lit_gans.modules import buffers_kept

__all__ = (
    "CompiledNetwork",
    "compile_networks",
    "compiled_input_gradient",
    "eagerly",
    "is_compiled",
    "tell_whether_it_pays",
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
    which compiled code cannot be: their input and the weights both require gradients. So do all calls within
    ``eagerly``. What a penalty makes of them is compiled as a whole instead, ``input_gradient``.

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
        self.rests = False  # whether it runs eagerly just now, whatever it is asked
        self._told = set[str]()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The network's answer."""
        if self.rests or not self.network.training:
            return self.forward.function(*args, **kwargs)
        if self._may_be_penalised(args, kwargs):
            if not self.input_gradient.failed:
                self.tell("where its input requires gradients, of which a penalty may be taken")
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

    def tell(self, when: str) -> None:
        """Say once when it stays eager."""
        if when not in self._told:
            self._told.add(when)
            rank_zero_info(
                f"compile: the {self.name} stays eager {when}: torch cannot differentiate compiled code twice"
            )


@contextmanager
def eagerly(*networks: nn.Module, told: str | None = None) -> Iterator[None]:
    """Within it networks run eagerly, compiled or not: to be compared, or to be differentiated twice by their weights.

    Args:
        networks: The networks.
        told: When that is so, to be told of those that would have run compiled; None tells nothing.
    """
    compiled: list[Any] = [network._compiled_call_impl for network in networks if is_compiled(network)]
    rested = [one.rests for one in compiled]
    for one in compiled:
        if told is not None and one.network.training and not one.rests:
            one.tell(told)
        one.rests = True
    try:
        yield
    finally:
        for one, before in zip(compiled, rested, strict=True):
            one.rests = before


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
        if not is_compiled(network):
            # where nn.Module.compile() keeps its own; copies and pickles of a network leave it out
            network._compiled_call_impl = CompiledNetwork(network, name, twice)


def is_compiled(network: nn.Module) -> bool:
    """Whether calls of a network while training go through compiled code."""
    return isinstance(network._compiled_call_impl, CompiledNetwork)


def compiled_input_gradient(network: nn.Module) -> Callable[..., Tensor] | None:
    """How a penalty of this network's gradient runs compiled; None where it does not."""
    compiled: Any = network._compiled_call_impl
    known = isinstance(compiled, CompiledNetwork) and hasattr(torch._dynamo.config, "trace_autograd_ops")
    return compiled.input_gradient if known and network.training and not compiled.rests else None


def tell_whether_it_pays(model: Any, real: Batch) -> None:
    """Tell how the time of compiled passes compares with that of eager ones.

    Both players' losses and gradients are computed in turn, three times in each way, on a batch of real samples. The
    median counts. Nothing is learnt from it, and the training that follows is the same as without.
    """
    times: dict[bool, list[float]] = {True: [], False: []}
    with buffers_kept(model), isolate_rng():
        for compiled in (True, False) * 4:
            with nullcontext() if compiled else eagerly(model.generator, model.discriminator):
                times[compiled].append(_seconds(model, real))
    model.turn, model.lazily = None, False
    ratio = statistics.median(a / b for a, b in zip(times[True][1:], times[False][1:], strict=True))
    advice = ": leave compile out" if ratio > 1 else ""
    rank_zero_info(f"compile: compiled steps take {ratio:.2f} of the time of eager ones{advice}")


def _seconds(model: Any, real: Batch) -> float:
    """Time of both players' losses and gradients, penalties that are due now and then left aside."""
    wait = torch.cuda.synchronize if real.x.is_cuda else int
    wait()
    start = time.perf_counter()
    for player in ("discriminator", "generator"):
        with model.frozen("discriminator") if player == "generator" else nullcontext():
            wanted = [p for p in model.network(player).parameters() if p.requires_grad]
            for closure in model.rounds(player, real, -1):
                loss = reduce(add, closure().values())
                with torch.autocast(real.x.device.type, enabled=False):
                    torch.autograd.grad(loss, wanted, allow_unused=True)
    wait()
    return time.perf_counter() - start

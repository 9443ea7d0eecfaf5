"""Data-parallel training in which each optimizer's update moves that optimizer's gradients only."""

import copy
import re
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.overrides.distributed import (
    _register_ddp_comm_hook,
    _sync_module_states,
    prepare_for_backward,
)
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from lit_gans.internals import ddp_arguments

__all__ = ("GANDDPStrategy",)

_LOST = re.compile(r"gloo/transport|pair closure|collective operation timeout")
_WAITED = re.compile(r"(?:Timed out waiting |Timeout\(ms\)=)(\d+)")
_UNFINISHED = re.compile(r"Expected to have finished reduction in the prior iteration")


class GANDDPStrategy(DDPStrategy):
    """``DDPStrategy`` for several optimizers that take turns, as ``Trainer(strategy="gan_ddp")``.

    Plain DDP has one reducer for all parameters: it must look for those that an update leaves out, and averages them
    all the same, so that both players' gradients travel in each update. Here parameters that belong to the same
    optimizers share a reducer, and a backward pass prepares those whose parameters require gradients. Gradients are
    averaged in buckets while the backward pass goes on, each optimizer's once; a parameter of two optimizers is
    averaged once, one of none never. Groups follow what is frozen and unfrozen, and parameter groups added later; only
    their layers must exist from the beginning.

    The LightningModule is not wrapped: its names, its ``state_dict`` and its methods are those of one process. At the
    beginning, all its parameters and buffers are made equal to those of rank 0.

    Args:
        timeout: How long a process waits for the others in a collective.
        **kwargs: Arguments of Lightning's ``DDPStrategy`` and, through it, of ``DistributedDataParallel``; the latter
            go to each reducer, and so does ``ddp_comm_hook``, on every backend.

    Raises:
        ValueError: with ``static_graph=True``, or for a module in automatic optimisation.

    >>> from lightning import Trainer
    >>> trainer = Trainer(strategy=GANDDPStrategy(bucket_cap_mb=10), accelerator="cpu", logger=False)
    """

    def __init__(self, *, timeout: timedelta = timedelta(minutes=10), **kwargs: Any) -> None:
        if kwargs.get("static_graph"):
            raise ValueError("GANDDPStrategy(static_graph=True) cannot hold where optimizers take turns: leave it out")
        super().__init__(timeout=timeout, **kwargs)
        ddp_arguments(self)["init_sync"] = (
            False  # done once for the whole module; again, it would write into a live graph
        )
        self._blocked = False
        self._sizes: list[int] = []
        self._shares: list[_Share] = []

    def configure_ddp(self) -> None:
        """Make the replicas equal; reducers come with the optimizers."""
        assert isinstance(self.model, LightningModule)
        if self.model.automatic_optimization:
            raise ValueError(
                "Trainer(strategy='gan_ddp') is for modules in manual optimisation: use strategy='ddp', "
                "or set self.automatic_optimization = False"
            )
        _sync_module_states(self.model)

    def setup_optimizers(self, trainer: Trainer) -> None:
        """Create the optimizers, and a reducer for each group of their parameters."""
        super().setup_optimizers(trainer)
        self._share_out()

    def pre_backward(self, closure_loss: Tensor) -> None:
        """Expect gradients of what is being trained, unless they are to stay local."""
        if self._sizes != _sizes(self.optimizers):
            self._share_out()
        for share in self._shares:
            if self._blocked:
                share.expect_nothing()
            else:
                share.prepare(closure_loss)

    @contextmanager
    def block_backward_sync(self) -> Generator[None, None, None]:
        """Gradients of backward passes in this context stay local; the first one after it averages their sum."""
        before, self._blocked = self._blocked, True
        try:
            yield
        finally:
            self._blocked = before

    def on_exception(self, exception: BaseException) -> None:
        """Say what a reducer missed, or who waited for whom when a collective failed."""
        message = str(exception)
        if _UNFINISHED.match(message):
            exception.args = (
                "a backward pass left some parameters of an optimizer without gradient: freeze them with "
                "requires_grad_(False), or use strategy=GANDDPStrategy(find_unused_parameters=True)",
            )
        elif isinstance(exception, RuntimeError) and _LOST.search(message):
            waited = _WAITED.search(message)
            what = f"waited {int(waited[1]) / 1000:g} s for" if waited else "lost its connection to"
            step = None if self.lightning_module is None else self.lightning_module.trainer.global_step
            exception.args = (
                f"{message}\nRank {self.global_rank} {what} another rank at global step {step}; usual causes are a "
                "rank that died, whose own output then says why, or that was stopped, and control flow that depends "
                "on the rank, such as an update, a skipped batch or a logged metric of some ranks only.",
            )

    def teardown(self) -> None:
        """Let the reducers go."""
        for share in self._shares:
            share.close()
        self._shares, self._sizes = [], []
        super().teardown()

    def _share_out(self) -> None:
        for share in self._shares:
            share.close()
        self._sizes = _sizes(self.optimizers)
        self._shares = [_Share(parameters, self._reducer) for parameters in _groups(self.optimizers)]

    def _reducer(self, parameters: list[nn.Parameter]) -> DistributedDataParallel:
        ddp = self._setup_model(nn.ParameterList(parameters))
        state = self._ddp_comm_state
        if isinstance(state, PowerSGDState):  # remembers errors by the bucket's number, which is unique per reducer
            state = copy.deepcopy(state)
        _register_ddp_comm_hook(ddp, state, self._ddp_comm_hook, self._ddp_comm_wrapper)
        return ddp


class _Share:
    """Parameters of the same optimizers, and a ``DistributedDataParallel`` of which only the reducer is used."""

    def __init__(
        self, parameters: list[nn.Parameter], reducer: Callable[[list[nn.Parameter]], DistributedDataParallel]
    ) -> None:
        self.parameters, self.make_reducer = parameters, reducer
        self.live: list[bool] = []
        self.ddp: DistributedDataParallel | None = None
        self.refresh([parameter.requires_grad for parameter in parameters])

    def refresh(self, live: list[bool]) -> None:
        """A reducer of those that require gradients; of those alone, as it waits for all it has."""
        if live == self.live or not any(live):
            return
        self.close()
        parameters = [parameter for parameter, lives in zip(self.parameters, live, strict=True) if lives]
        self.live, self.ddp = live, self.make_reducer(parameters)
        self.expecting = False
        self.watch = parameters[0].register_post_accumulate_grad_hook(self.arrived)

    def arrived(self, parameter: Tensor) -> None:
        """The backward pass has reached this group."""
        self.expecting = False

    def prepare(self, loss: Tensor) -> None:
        """Average what the coming backward pass of ``loss`` accumulates, if it reaches this group."""
        live = [parameter.requires_grad for parameter in self.parameters]
        if any(live):
            self.refresh(live)
            assert self.ddp is not None
            prepare_for_backward(self.ddp, loss)
            self.expecting = True

    def expect_nothing(self) -> None:
        """Average nothing, even though an earlier preparation has met no gradients."""
        if self.ddp is not None and self.expecting:
            self.ddp.reducer._reset_state()
            self.expecting = False

    def close(self) -> None:
        """Free the reducer; its hooks go with it."""
        if self.ddp is not None:
            self.watch.remove()
            self.ddp = None


def _sizes(optimizers: Iterable[Optimizer]) -> list[int]:
    return [len(group["params"]) for optimizer in optimizers for group in optimizer.param_groups]


def _groups(optimizers: Iterable[Optimizer]) -> list[list[nn.Parameter]]:
    """Parameters by the set of optimizers that they belong to."""
    owners = dict[nn.Parameter, list[int]]()
    for index, optimizer in enumerate(optimizers):
        for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
            owners.setdefault(parameter, []).append(index)
    groups = dict[tuple[int, ...], list[nn.Parameter]]()
    for parameter, who in owners.items():
        groups.setdefault(tuple(who), []).append(parameter)
    return list(groups.values())


StrategyRegistry.register("gan_ddp", GANDDPStrategy, description="DDP for several optimizers that take turns")

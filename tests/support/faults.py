"""Things that go wrong, on purpose, at given steps; and what the guard wrote of them."""

import json
import math

import torch
from lightning import Callback, LightningModule
from toys import Discriminator, Generator


class Fault(Callback):
    """Spoils gradients (nan or inf in one, or a factor), a weight, or the batch of one player, at the steps given."""

    def __init__(self, what, *steps, player="discriminator", rank=None, every=None):
        self.what, self.steps, self.player, self.rank, self.every = what, steps, player, rank, every

    def now(self, trainer):
        step = trainer.fit_loop.epoch_loop._batches_that_stepped
        mine = self.rank in (None, trainer.global_rank)
        return mine and (step in self.steps or (self.every is not None and step >= self.every))

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.now(trainer):
            with torch.no_grad():
                if self.what == "weight":
                    next(iter(getattr(pl_module, self.player).parameters())).view(-1)[0] = math.nan
                elif self.what == "batch":
                    (batch if isinstance(batch, torch.Tensor) else batch[0]).fill_(math.nan)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        owned = {id(p) for p in getattr(pl_module, self.player).parameters()}
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if self.now(trainer) and id(parameters[0]) in owned and not isinstance(self.what, str):
            if math.isfinite(self.what):
                for parameter in parameters:
                    parameter.grad.mul_(self.what)
            else:
                parameters[-1].grad.view(-1)[0] = self.what


def events(folder):
    """Lines of the only ``health.jsonl`` below a folder."""
    (path,) = folder.rglob("health.jsonl")
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


class Plain(LightningModule):
    """A GAN as one writes it without this library: attributes of its own, two optimizers, each stepped once."""

    def __init__(self, automatic=False):
        super().__init__()
        torch.manual_seed(0)
        self.automatic_optimization = automatic
        self.net_g, self.net_d = Generator(), Discriminator()

    def sample(self, n):
        return self.net_g(torch.randn(n, 8))

    def configure_optimizers(self):
        return [torch.optim.SGD(net.parameters(), lr=0.01) for net in (self.net_g, self.net_d)]

    def training_step(self, batch, batch_idx):
        x = batch[0] if isinstance(batch, (list, tuple)) else batch
        g_opt, d_opt = self.optimizers()
        d_opt.zero_grad()
        loss = (self.net_d(self.sample(len(x)).detach()) - self.net_d(x)).mean()
        self.manual_backward(loss)
        d_opt.step()
        g_opt.zero_grad()
        self.manual_backward(-self.net_d(self.sample(len(x))).mean())
        g_opt.step()

"""Two gloo processes on the CPU, both strategies: one launch of this file trains them all, the tests read its notes."""

from contextlib import contextmanager
from functools import cache
from itertools import product

import pytest
import torch
from launching import ranks
from lightning import Callback
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from toys import EXTRAS, LATENT, MODELS, SIDE, Batches, networks, trainer

from lit_gans import functional
from lit_gans.augment import ADA, DiffAugment
from lit_gans.callbacks import ReplicaCheck
from lit_gans.data import ImageDataModule
from lit_gans.functional import Batch
from lit_gans.models import dragan, ssgan, wgan_gp, wgan_lp
from lit_gans.regularizers import (
    R1,
    R2,
    Consistency,
    GradientPenalty,
    LatentDiversity,
    LeCam,
    Orthogonal,
    PathLength,
    consistency,
    gradient_penalty,
)
from lit_gans.strategies import GANDDPStrategy

pytestmark = pytest.mark.slow  # a minute, nearly all of it the one launch

STEPS, BATCH = 7, 4  # three batches an epoch for each rank; the seventh step comes after the last validation
STRATEGIES = ["ddp", "gan_ddp"]
RUNS = ["GAN", "GAN-accumulate", "GAN-R1", "GAN-sync", "DCGAN-norm", "WGAN", "WGANGP", "WGANGP-sync", "SNGAN"]
RUNS += ["CGAN", "CGAN-accumulate"]


class Mirrored(nn.Module):
    """An augmentation that draws nothing."""

    def forward(self, x):
        return x.flip(3)


ADD_ONS = {
    "R1": lambda: [R1(1.0, every=2)],
    "R2": lambda: [R2(1.0)],
    "GradientPenalty": lambda: [GradientPenalty()],
    "LeCam": lambda: [LeCam(0.1)],
    "bCR": lambda: [Consistency(fake=1.0, augment=Mirrored())],
    "ICR": lambda: [Consistency(fake=1.0, latent=2.0, augment=Mirrored()), LatentDiversity()],
    "PathLength": lambda: [PathLength(every=2)],
    "Orthogonal": lambda: [Orthogonal(1e-2)],
}
AUGMENTS = {"DiffAugment": lambda: DiffAugment(["color"]), "ADA": lambda: ADA(kimg=0.1, every=2, target=-1.0)}
ZOO = sorted(MODELS.keys() - {run.partition("-")[0] for run in RUNS})  # under one strategy, the other being equal
ZOO += [f"GAN-{name}" for name in (*ADD_ONS, *AUGMENTS) if f"GAN-{name}" not in RUNS]
PAIRS = [*product(STRATEGIES, RUNS), *(("gan_ddp", name) for name in ZOO)]
OWN_NOISE = [f"GAN-{name}" for name in AUGMENTS]  # two processes augment other than one would
BYTES = {"GAN-bytes": 1, "WGANGP-bytes": 5}  # with n_critic; five steps each
LONG = 200


@contextmanager
def drawing_the_same():
    """What models draw besides latents and labels is the same for each image: two processes draw other than one."""

    class Torch:
        def __getattr__(self, name):
            return getattr(torch, name)

        def randint(self, high, size, **_):
            return torch.arange(*size) % high

        def randn(self, shape, **_):
            return torch.ones(shape)

    with pytest.MonkeyPatch.context() as patch:
        for paper in (wgan_gp, wgan_lp):
            patch.setattr(paper, "interpolate", lambda real, fake, rng: Batch(0.3 * real.x + 0.7 * fake.x, real.y))
        patch.setattr(dragan, "perturb", lambda real, noise, rng: Batch(real.x + noise, real.y))
        patch.setattr(gradient_penalty, "interpolate", wgan_gp.interpolate)
        for module in (ssgan, consistency, functional):
            patch.setattr(module, "torch", Torch())
        yield


def make(run, cls=None, **kwargs):
    """The model of a run, the same wherever it is made."""
    name, _, option = run.partition("-")
    generator, discriminator = networks(name, norm=option in ("norm", "sync"))
    if option in ("norm", "sync"):
        discriminator.body.insert(1, nn.BatchNorm1d(16))
    extra = EXTRAS.get(name, {}) | ({"regularizers": ADD_ONS[option]()} if option in ADD_ONS else {})
    extra |= {"augment": AUGMENTS[option]()} if option in AUGMENTS else {}
    extra |= {"pl_weight": 0.0} if name == "StyleGAN2" else {}
    return (cls or MODELS[name])(generator, discriminator, **{"latent_dim": LATENT, "n_critic": 2, **extra, **kwargs})


def precision(run):
    """Batch norm under a gradient penalty: its rounding errors in single precision are above what is compared."""
    return "64-true" if run == "WGANGP-sync" else "32-true"


class Notes(Callback):
    """All that the tests want to know of a run."""

    def __init__(self):
        self.notes = {"batches": [], "gradients": [], "validated": []}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.notes["batches"].append(batch)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        gradients = [p.grad.clone() for group in optimizer.param_groups for p in group["params"]]
        self.notes["gradients"].append(gradients)

    def on_validation_end(self, trainer, pl_module):
        self.notes["validated"].append([b.clone() for b in pl_module.buffers()])


def noting(cls, drawn, labels):
    """The model, which notes what it draws for training."""

    class Noting(cls):
        def draw_latents(self, n, rng):
            z = super().draw_latents(n, rng)
            if rng is self.rng and self.trainer.training:
                drawn.append(z)
            return z

        def draw_labels(self, n, rng):
            y = super().draw_labels(n, rng)
            if rng is self.rng and self.trainer.training:
                labels.append(y)
            return y

    return Noting


def data(batches=3):
    return ImageDataModule(
        "fake", image_size=SIDE, channels=1, batch_size=BATCH, fake_length=2 * batches * BATCH, fake_classes=3
    )


def train(strategy, run):
    """Train on this process as one of two, and save what was noted."""
    drawn, labels, watch = [], [], Notes()
    name, _, option = run.partition("-")
    model = make(run, noting(MODELS[name], drawn, labels), accumulate=1 + (option == "accumulate"))
    names = list(model.state_dict())
    ddp = trainer(
        ".",
        devices=2,
        strategy=strategy,
        max_steps=STEPS,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        sync_batchnorm=option == "sync",
        precision=precision(run),
        callbacks=[watch, ReplicaCheck()],
    )
    ddp.fit(model, data())
    notes = watch.notes | {"z": drawn, "y": labels, "parameters": [p.detach() for p in model.parameters()]}
    notes |= {"trained": [b.clone() for b in model.buffers()], "names": [names, list(model.state_dict())]}
    ddp.save_checkpoint(f"{strategy}-{run}.ckpt")
    notes |= {"state": (ddp.global_rank, ddp.world_size, ddp.global_step)}
    torch.save(notes | {"images_seen": model.images_seen}, f"{strategy}-{run}-{ddp.global_rank}.pt")


def count_bytes(strategy, run, n_critic):
    """Note how much each of five steps sends."""
    sent = [0]

    def hook(state, bucket):
        sent[-1] += bucket.buffer().nbytes
        return allreduce_hook(None, bucket)

    class Counter(Callback):
        def on_fit_start(self, trainer, pl_module):
            if strategy == "ddp":  # Lightning registers hooks on GPUs only
                trainer.strategy.model.register_comm_hook(None, hook)

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            sent.append(0)

    kind = GANDDPStrategy(ddp_comm_hook=hook) if strategy == "gan_ddp" else strategy
    model = make(run, n_critic=n_critic)
    ddp = trainer(
        ".",
        devices=2,
        strategy=kind,
        max_steps=5,
        use_distributed_sampler=False,
        limit_val_batches=0,
        callbacks=[Counter()],
    )
    ddp.fit(model, data(5))
    sizes = [4 * sum(p.numel() for p in model.network(who).parameters()) for who in ("discriminator", "generator")]
    torch.save({"sent": sent[:-1], "sizes": sizes}, f"{strategy}-{run}-{ddp.global_rank}.pt")


def train_long(strategy):
    """Note only the weights after many steps."""
    model = make("GAN")
    ddp = trainer(".", devices=2, strategy=strategy, max_steps=LONG, limit_val_batches=0, use_distributed_sampler=False)
    ddp.fit(model, data(50))
    torch.save([p.detach() for p in model.parameters()], f"{strategy}-long-{ddp.global_rank}.pt")


if __name__ == "__main__":
    with drawing_the_same():
        for strategy, run in PAIRS:
            train(strategy, run)
    for strategy in STRATEGIES:
        for run, n_critic in BYTES.items():
            count_bytes(strategy, run, n_critic)
        train_long(strategy)


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    """What each rank noted, by strategy and run."""
    folder = tmp_path_factory.mktemp("ddp")
    done = ranks(__file__, cwd=folder)
    assert done.returncode == 0, done.stderr[-4000:]
    noted = {
        (strategy, run): [torch.load(folder / f"{strategy}-{run}-{rank}.pt", weights_only=True) for rank in (0, 1)]
        for strategy, run in [*PAIRS, *product(STRATEGIES, [*BYTES, "long"])]
    }
    for strategy, run in PAIRS:
        state = torch.load(folder / f"{strategy}-{run}.ckpt", weights_only=True)["state_dict"]
        noted[strategy, run][0]["saved"] = [state[name] for name, _ in make(run).named_buffers()]
    return noted


def equal(some, others):
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


each_run = pytest.mark.parametrize(("strategy", "run"), PAIRS)
both_strategies = pytest.mark.parametrize("strategy", STRATEGIES)


@each_run
def test_replicas_stay_equal_bit_by_bit(notes, strategy, run):
    first, second = notes[strategy, run]
    assert (first["state"], second["state"]) == ((0, 2, STEPS), (1, 2, STEPS))
    assert equal(first["parameters"], second["parameters"])
    for some, others in zip(first["gradients"], second["gradients"], strict=True):
        assert equal(some, others)


@both_strategies
def test_replicas_are_equal_after_many_steps(notes, strategy):
    first, second = notes[strategy, "long"]
    assert equal(first, second)
    assert not equal(first, [p.detach() for p in make("GAN").parameters()])


@each_run
def test_names_in_the_state_dict_stay(notes, strategy, run):
    before, after = notes[strategy, run][0]["names"]
    assert before == after


@each_run
def test_ranks_draw_different_noise_and_never_the_same_twice(notes, strategy, run):
    drawn = [tuple(z.flatten().tolist()) for note in notes[strategy, run] for z in note["z"]]
    own = {"GAN-ICR": STEPS + STEPS // 2, "GAN-PathLength": 2}.get(run, 0)  # latents that an add-on draws
    assert len(drawn) == 2 * (STEPS + STEPS // 2 + own)
    assert len(set(drawn)) == len(drawn)


@each_run
def test_ranks_see_disjoint_halves_of_each_epoch(notes, strategy, run):
    ranks = notes[strategy, run]
    for epoch in (slice(0, 3), slice(3, 6)):
        halves = [{tuple(image.flatten().tolist()) for x, _ in note["batches"][epoch] for image in x} for note in ranks]
        assert [len(half) for half in halves] == [3 * BATCH, 3 * BATCH]
        assert not halves[0] & halves[1]
    assert ranks[0]["images_seen"] == ranks[1]["images_seen"] == 2 * BATCH * STEPS


@pytest.fixture(scope="module")
def joint(notes, tmp_path_factory):
    """Gradients of one process, given the noise and the images of both ranks together."""

    @cache
    def replay(run):
        first, second = notes["gan_ddp", run]
        latents = iter([torch.cat(pair) for pair in zip(first["z"], second["z"], strict=True)])
        labels = iter([torch.cat(pair) for pair in zip(first["y"], second["y"], strict=True)])
        pairs = zip(first["batches"], second["batches"], strict=True)
        batches = [[torch.cat(tensors) for tensors in zip(*pair, strict=True)] for pair in pairs]
        watch = Notes()

        class Joint(MODELS[run.partition("-")[0]]):
            def draw_latents(self, n, rng):
                return next(latents) if rng is self.rng else super().draw_latents(n, rng)

            def draw_labels(self, n, rng):
                return next(labels) if rng is self.rng else super().draw_labels(n, rng)

        with drawing_the_same():
            one = trainer(
                tmp_path_factory.mktemp("joint"), max_steps=STEPS, callbacks=[watch], precision=precision(run)
            )
            one.fit(make(run, Joint), Batches(*batches))
        return watch.notes["gradients"]

    return replay


@pytest.mark.parametrize(("strategy", "run"), [pair for pair in PAIRS if pair[1] not in ("DCGAN-norm", *OWN_NOISE)])
def test_gradients_equal_those_of_one_process_on_the_joint_batch(notes, joint, strategy, run):
    theirs = notes[strategy, run][0]
    assert equal(theirs["z"], notes["gan_ddp", run][0]["z"])
    ours = joint(run)
    assert len(ours) == len(theirs["gradients"]) == STEPS + STEPS // 2
    for step, pairs in enumerate(zip(ours, theirs["gradients"], strict=True)):
        for a, b in zip(*pairs, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-6, msg=lambda text, step=step: f"update {step}: {text}")


@both_strategies
def test_batch_statistics_differ_while_training_and_are_averaged_before_validation_and_saving(notes, strategy):
    first, second = notes[strategy, "DCGAN-norm"]
    assert not equal(first["trained"], second["trained"])
    assert len(first["validated"]) == 2
    for some, others in zip(first["validated"], second["validated"], strict=True):
        assert equal(some, others)
    for a, b, mean in zip(first["trained"], second["trained"], first["saved"], strict=True):
        torch.testing.assert_close(mean, ((a.double() + b.double()) / 2).to(a.dtype), rtol=1e-6, atol=1e-7)


def test_an_adaptive_augmentation_adapts_alike_on_all_processes(notes):
    (first, second), plain = notes["gan_ddp", "GAN-ADA"], [b for b, _ in make("GAN-ADA").named_buffers()]
    assert equal(first["trained"], second["trained"])
    assert first["trained"][plain.index("augment.p")] > 0


@pytest.mark.parametrize("run", BYTES)
def test_each_update_sends_the_gradients_of_its_player_alone(notes, run):
    d, g = notes["ddp", run][0]["sizes"]
    games = [step % BYTES[run] == 0 for step in range(1, 6)]
    assert notes["ddp", run][0]["sent"] == [(d + g) * (1 + plays) for plays in games]
    assert notes["gan_ddp", run][0]["sent"] == [d + g * plays for plays in games]

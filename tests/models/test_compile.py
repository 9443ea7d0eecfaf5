"""Compiled and channels_last training give the numbers, the keys and the checkpoints of the plain one."""

import copy
import logging
import pickle
import re
import shutil
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch._dynamo.utils import counters
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.data import DataLoader, TensorDataset
from toys import (
    CLASSES,
    EXTRAS,
    LATENT,
    MODELS,
    Discriminator,
    Generator,
    build,
    images,
    loader,
    networks,
    trainer,
    weights,
)

from lit_gans.augment import ADA
from lit_gans.game import compiling, module
from lit_gans.game.layout import lay_out
from lit_gans.game.module import PLAYERS
from lit_gans.models import GAN, WGANGP
from lit_gans.modules import frozen
from lit_gans.networks import (
    BigGANDiscriminator,
    BigGANGenerator,
    ResNetDiscriminator,
    ResNetGenerator,
    SAGANDiscriminator,
    SAGANGenerator,
)
from lit_gans.regularizers import R1, LeCam, Regularizer

NORMED = [f"{penalised}-{norm}" for penalised in ("R1", "WGANGP") for norm in ("batch", "spectral")]
SOME = ("CGAN", "R1-batch", "WGANGP-spectral")  # each time: labels and a generator, both penalties, both norms
CASES = [
    case if case in SOME else pytest.param(case, marks=[pytest.mark.slow, pytest.mark.exhaustive])
    for case in [*MODELS, "R1", *NORMED]
]
READS_REAL = {"RaGAN": 1}  # in the generator's turn, where its images require no gradients: a graph more
MORE = {"SSGAN": 1, "UnrolledGAN": -2}  # a view and its rotation; the discriminator in the generator's turn is eager
STAYS_EAGER = {
    "StyleGAN2": [  # where path lengths are measured
        "compile: the generator stays eager where its input requires gradients, of which a penalty may be taken: torch "
        "cannot differentiate compiled code twice"
    ],
    "UnrolledGAN": [
        "compile: the discriminator stays eager while the generator is differentiated through its steps: torch cannot "
        "differentiate compiled code twice"
    ],
}
needs_penalties = pytest.mark.skipif(
    not hasattr(torch._dynamo.config, "trace_autograd_ops"), reason="this torch compiles no gradient of a gradient"
)
needs_cxx = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))), reason="inductor needs a C++ compiler"
)


ADAM = partial(torch.optim.Adam, lr=1e-3, eps=1e-3, fused=True)
CALM = {"g_optimizer": ADAM, "d_optimizer": ADAM}  # which do not magnify the noise of rounding


class Conv(nn.Module):
    """A discriminator with two convolutions and the norm asked for."""

    def __init__(self, norm=None, channels=1):
        super().__init__()
        layers = [nn.Conv2d(channels, 4, 3, 2, 1), nn.Softplus(), nn.Conv2d(4, 6, 3, 1, 1), nn.Softplus()]
        if norm == "batch":
            layers.insert(1, nn.BatchNorm2d(4))
        layers += [nn.Flatten(), nn.Linear(6 * 9, 1)]
        self.body = nn.Sequential(
            *(spectral_norm(x) if norm == "spectral" and hasattr(x, "weight") else x for x in layers)
        )

    def forward(self, x):
        return self.body(x)


class ConvGenerator(nn.Module):
    def __init__(self, channels=3):
        super().__init__()
        self.first, self.norm = nn.Linear(LATENT, 5 * 9), nn.BatchNorm2d(5)
        self.last = nn.ConvTranspose2d(5, channels, 4, 2, 1)

    def forward(self, z):
        return self.last(self.norm(self.first(z).unflatten(1, (5, 3, 3)))).tanh()


def model_of(case, **kwargs):
    """A toy model; of R1 and with a norm where the case says so, and with dropout in its generator."""
    name, _, norm = case.partition("-")
    if name == "R1":
        name, kwargs["regularizers"] = "GAN", [R1(1.0)]
    model = MODELS[name](*networks(name, dropout=0.2, norm=True), latent_dim=LATENT, **EXTRAS.get(name, {}), **kwargs)
    torch.manual_seed(0)
    if norm:
        model.discriminator = Conv(norm)
    return model


def play(model, player, n, seed, channels=1):
    """A player's terms and gradients on one batch of n samples, and of as many more as fill whole packs."""
    n += -n % model.pack
    real = images(n * channels, seed=seed).view(n, channels, 6, 6)
    real = model.real_of((real, torch.arange(n) % CLASSES))
    torch.manual_seed(seed)
    model.reseed(seed)
    model.zero_grad()
    with frozen(list(model.discriminator.parameters())) if player == "generator" else nullcontext():
        terms = model.play(player, real, model.inputs_of(real), step=0)
        sum(terms.values()).backward()
    return terms, [p.grad for p in model.network(player).parameters()]


def assert_plays_like(plain, other, sizes, channels=1, players=PLAYERS):
    for seed, n in enumerate(sizes):
        for player in players:
            (terms, gradients), (other_terms, others) = (
                play(model, player, n, seed, channels) for model in (plain, other)
            )
            assert {k: float(v.detach()) for k, v in other_terms.items()} == pytest.approx(
                {k: float(v.detach()) for k, v in terms.items()}, rel=1e-5, abs=1e-5
            )
            scale = max(float(g.abs().max()) for g in gradients if g is not None)
            for mine, theirs in zip(gradients, others, strict=True):
                assert (mine is None) == (theirs is None)
                assert mine is None or torch.allclose(mine, theirs, rtol=0, atol=1e-5 * scale)
    for (name, mine), theirs in zip(plain.named_buffers(), other.buffers(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5), name


def assert_close(first, second, atol=1e-5):
    assert list(first) == list(second)
    for key, value in first.items():
        assert torch.allclose(value, second[key], atol=atol), key


def fit(model, tmp_path, steps=4, data=None, **kwargs):
    """Train on batches of 8, 8 and 5, again and again."""
    trainer(tmp_path, max_steps=steps, **kwargs).fit(model, loader(21) if data is None else data)
    return weights(model)


@pytest.fixture
def told(monkeypatch):
    """Compile without kernels, which is all that inductor would add; the messages."""
    messages = []
    monkeypatch.setattr(compiling, "_BACKEND", "aot_eager")
    monkeypatch.setattr(compiling, "rank_zero_info", messages.append)
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "propagate", False)  # pytest would keep all of it
    counters.clear()
    return messages


@needs_penalties
@pytest.mark.parametrize("case", CASES)
def test_losses_gradients_and_buffers_equal_those_of_eager(case, told):
    plain, compiled = model_of(case), model_of(case)
    compiling.compile_networks(compiled)
    players = PLAYERS[:1] if "-" in case else PLAYERS
    assert_plays_like(plain, compiled, sizes=(8, 5), players=players)
    # each network, once per player; a penalty's graph; all of them for one size and for any
    slopes = 2 if case == "R3GAN" else case.startswith(("R1", "WGANGP", "WGANLP", "DRAGAN", "StyleGAN2"))
    graphs = 2 * (2 * len(players) + slopes + READS_REAL.get(case, 0)) + MORE.get(case, 0)
    assert counters["stats"]["unique_graphs"] == graphs
    assert not counters["graph_break"]
    assert told == STAYS_EAGER.get(case, [])
    assert_plays_like(plain, compiled, sizes=(7, 3), players=players)
    # torch has no double backward of batch norm for any size
    assert counters["stats"]["unique_graphs"] == graphs + (2 if case.endswith("batch") else 0)


@pytest.mark.slow
@needs_cxx
@needs_penalties
@pytest.mark.parametrize(("case", "graphs"), [("GAN", 2), pytest.param("WGANGP", 3, marks=pytest.mark.exhaustive)])
def test_kernels_of_inductor_equal_eager(case, graphs):
    """By default without a penalty, whose kernels take a compiler as long again."""
    counters.clear()
    plain, compiled = model_of(case), model_of(case)
    compiling.compile_networks(compiled)
    assert_plays_like(plain, compiled, sizes=(8,), players=PLAYERS[:1])
    assert counters["stats"]["unique_graphs"] == graphs
    assert counters["inductor"]


@needs_penalties
@pytest.mark.parametrize("name", [pytest.param("CGAN", marks=pytest.mark.exhaustive), "WGANGP"])
def test_training_is_the_same_with_few_graphs_and_exchangeable_checkpoints(name, told, tmp_path):
    ends = []
    for compile_networks in (False, True):
        saver = ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1, filename=f"{compile_networks}-{{step}}")
        model = build(name, compile=compile_networks, n_critic=2, ema_decay=0.9, **CALM)
        ends.append(fit(model, tmp_path, 6, callbacks=[saver], enable_checkpointing=True))
    assert_close(*ends)
    assert counters["stats"]["unique_graphs"] == (8 if name == "CGAN" else 10)
    for saved, resumed in ((False, True), (True, False)):
        model = build(name, seed=7, compile=resumed, n_critic=2, ema_decay=0.9, **CALM)
        run = trainer(tmp_path, max_steps=6)
        run.fit(model, loader(21), ckpt_path=tmp_path / f"{saved}-step=3.ckpt", weights_only=True)
        assert_close(ends[0], weights(model))
    assert not told


def test_only_training_is_compiled(told, tmp_path):
    model = build("GAN", compile=True)
    run = trainer(tmp_path, max_steps=2)
    run.fit(model, loader(16))
    graphs = counters["stats"]["unique_graphs"]
    assert graphs > 0
    model.sample(3, seed=0)
    run.validate(model, loader(16), verbose=False)
    run = trainer(tmp_path, max_steps=2)
    run.fit(model, loader(16))  # what is compiled stays so
    assert counters["stats"]["unique_graphs"] == graphs


def test_copies_and_pickles_of_a_compiled_network_are_plain():
    discriminator = networks("GAN")[1]
    model = GAN(Generator(), discriminator, latent_dim=LATENT)
    keys = list(model.state_dict())
    compiling.compile_networks(model)
    assert list(model.state_dict()) == keys
    assert isinstance(discriminator._compiled_call_impl, compiling.CompiledNetwork)
    for twin in (copy.deepcopy(discriminator), pickle.loads(pickle.dumps(discriminator))):
        assert twin._compiled_call_impl is None
        assert torch.equal(twin(images(2)), discriminator.eval()(images(2)))


# what cannot be compiled


class Talking(Discriminator):
    """No graph can hold what it does."""

    def forward(self, x, y=None):
        print(end="")
        return super().forward(x, y)


class Slope(Regularizer):
    """A gradient penalty by hand."""

    name = "slope"

    def forward(self, model, real, fake):
        x = real.x.clone().requires_grad_() if self.player == "discriminator" else fake.x
        (gradient,) = torch.autograd.grad(model.discriminate(x).sum(), x, create_graph=True)
        return gradient.square().mean()


class SlopeOfFakes(Slope):
    player = "generator"


class Shifted:
    """An augmentation with noise from a generator of its own."""

    def __init__(self):
        self.rng = torch.Generator().manual_seed(0)

    def __call__(self, x):
        return x + 0.1 * torch.randn(x.shape, generator=self.rng)


TWICE = "stays eager where its input requires gradients"


@needs_penalties
@pytest.mark.parametrize(
    ("model_class", "discriminator", "arguments", "messages"),
    [
        pytest.param(GAN, Talking, dict, ["the discriminator stays eager: .*print"], marks=pytest.mark.exhaustive),
        (  # the same network, and a penalty that asks it
            WGANGP,
            Talking,
            dict,
            ["the discriminator stays eager: .*print", "the gradient penalty stays eager: .*in forward"],
        ),
        (GAN, Discriminator, lambda: {"regularizers": [Slope(1.0)]}, [TWICE]),
        (GAN, Discriminator, lambda: {"regularizers": [SlopeOfFakes(1.0)]}, [TWICE]),
        (
            WGANGP,
            Discriminator,
            lambda: {"augment": Shifted()},
            ["the gradient penalty stays eager: .*in __call__"],
        ),
    ],
    ids=["network", "network-and-penalty", "own-penalty", "own-penalty-of-generator", "augment"],
)
def test_what_cannot_be_compiled_runs_eagerly_and_is_told_once(
    model_class, discriminator, arguments, messages, told, tmp_path
):
    ends = []
    for compile_networks in (False, True):
        torch.manual_seed(0)
        model = model_class(
            Generator(), discriminator(), latent_dim=LATENT, n_critic=1, compile=compile_networks, **CALM, **arguments()
        )
        ends.append(fit(model, tmp_path))
    assert_close(*ends)
    assert counters["stats"]["unique_graphs"] > 0
    assert len(told) == len(messages)
    for message, pattern in zip(told, messages, strict=True):
        assert message.startswith("compile: ")
        assert "\n" not in message
        assert re.search(pattern, message)


def broken(graph, inputs):
    raise OSError("no compiler here")


def half_broken(graph, inputs):
    from torch._dynamo.backends.common import aot_autograd

    return aot_autograd(fw_compiler=lambda graph, inputs: graph, bw_compiler=broken)(graph, inputs)


@needs_penalties
@pytest.mark.parametrize("backend", [broken, half_broken])
def test_a_compiler_that_fails_stops_no_training(backend, told, monkeypatch, tmp_path):
    monkeypatch.setattr(compiling, "_BACKEND", backend)
    assert_close(*(fit(build("WGANGP", compile=on, n_critic=1, **CALM), tmp_path) for on in (False, True)))
    assert {message.partition(" stays eager: ")[0] for message in told} == {
        "compile: the generator",
        "compile: the discriminator",
        "compile: the gradient penalty",
    }
    assert len(told) == 3


def test_too_many_graphs_stop_no_training(told):
    compiled = compiling.Compiled(lambda x, times: x * len(times), "the product", nullcontext)
    with torch._dynamo.config.patch(recompile_limit=2):
        assert [float(compiled(torch.ones(()), "-" * n)) for n in (2, 3, 4, 5)] == [2, 3, 4, 5]
    assert counters["stats"]["unique_graphs"] == 2
    assert len(told) == 1
    assert told[0].startswith("compile: the product stays eager: FailOnRecompileLimitHit")


def test_graphs_of_many_models_do_not_add_up(told):
    with torch._dynamo.config.patch(recompile_limit=1):
        for _ in range(3):
            compiled = compiling.Compiled(lambda x: x.sin(), "the sine", nullcontext)
            assert float(compiled(torch.zeros(()))) == 0
    assert counters["stats"]["unique_graphs"] == 3
    assert not told


# channels_last


def pictures():
    x = torch.rand(20, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return DataLoader(TensorDataset(x), 8)


def conv_model(model_class=WGANGP, **kwargs):
    """A model with convolutions."""
    torch.manual_seed(0)
    defaults = {"latent_dim": LATENT, "n_critic": 1, "ema_decay": 0.9, **CALM}
    return model_class(ConvGenerator(), Conv(channels=3), **defaults, **kwargs)


def is_channels_last(x):
    return x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("regularizers", [[], [R1(1.0)]])
@pytest.mark.parametrize("model_class", [GAN, WGANGP])
def test_channels_last_changes_the_layout_and_no_number(model_class, regularizers):
    plain, model = (conv_model(model_class, regularizers=regularizers, channels_last=on) for on in (False, True))
    lay_out(model, torch.channels_last)
    assert_plays_like(plain, model, sizes=(8, 5), channels=3)
    for (key, value), other in zip(model.state_dict().items(), plain.state_dict().values(), strict=True):
        assert value.shape == other.shape
        if value.ndim == 4 and not key.startswith("g_ema"):
            assert is_channels_last(value)
            assert not is_channels_last(other)


def test_checkpoints_with_and_without_channels_last_continue_each_other(tmp_path):
    def train(on, steps, ckpt=None):
        saver = ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1, filename=f"{on}-{{step}}")
        model = conv_model(channels_last=on)
        seen = []
        model.discriminator.register_forward_pre_hook(lambda _, x: seen.append(is_channels_last(x[0])))
        run = trainer(tmp_path, max_steps=steps, callbacks=[saver], enable_checkpointing=True)
        run.fit(model, pictures(), ckpt_path=ckpt, weights_only=True)
        assert all(is_channels_last(p) is on for p in model.parameters() if p.ndim == 4)
        assert all(seen[-4:]) is on
        return weights(model)

    ends = {on: train(on, 6) for on in (False, True)}
    assert_close(ends[False], ends[True])
    for saved, resumed in ((False, True), (True, False)):
        assert_close(ends[False], train(resumed, 6, tmp_path / f"{saved}-step=3.ckpt"))


@pytest.mark.parametrize("name", MODELS)
def test_channels_last_leaves_networks_without_convolutions_alone(name, tmp_path):
    plain, model = (fit(build(name, channels_last=on), tmp_path, 2) for on in (False, True))
    assert_close(plain, model, atol=0)


@needs_penalties
def test_both_together(told, tmp_path):
    assert_close(*(fit(conv_model(compile=on, channels_last=on), tmp_path, 3, pictures()) for on in (False, True)))
    assert 10 <= counters["stats"]["unique_graphs"] <= 12
    assert not told


class Pointwise(nn.Module):
    """The smallest discriminator whose spectral norm has a vector that compiled code would keep, not copy."""

    def __init__(self):
        super().__init__()
        self.first, self.last = spectral_norm(nn.Conv2d(3, 4, 1)), nn.Linear(4, 1)

    def forward(self, x):
        return self.last(self.first(x).relu().mean((2, 3)))


def shipped(name):
    """The networks of a config, as narrow as they can be."""
    small = {"image_size": 32, "width": 4}
    if name == "SNGAN":
        return ResNetGenerator(latent_dim=LATENT, **small), ResNetDiscriminator(**small)
    classes = {"num_classes": CLASSES, "attention_size": 16, **small}
    if name == "SAGAN":
        return SAGANGenerator(latent_dim=LATENT, **classes), SAGANDiscriminator(**classes)
    head = {"head": 4} if name == "ReACGAN" else {}
    seen = {"num_classes": None} if name == "ReACGAN" else {}
    return (
        BigGANGenerator(latent_dim=LATENT, shared_dim=4, **classes),
        BigGANDiscriminator(**classes | seen | head),
    )


@needs_cxx
@pytest.mark.parametrize(
    "name",
    [
        "pointwise",
        *(
            pytest.param(name, marks=[pytest.mark.slow, pytest.mark.exhaustive])
            for name in ("SNGAN", "SAGAN", "BigGAN", "ReACGAN")
        ),
    ],
)
def test_spectral_norm_of_shipped_networks_compiles(name, tmp_path, caplog):
    torch.manual_seed(0)
    g, d = (ConvGenerator(), Pointwise()) if name == "pointwise" else shipped(name)
    side, extra = (6, {}) if name == "pointwise" else (32, {"num_classes": CLASSES} if name != "SNGAN" else {})
    extra |= {"embed_dim": 4} if name == "ReACGAN" else {}
    cls = GAN if name == "pointwise" else MODELS[name]
    x = torch.rand(16, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    data = DataLoader(TensorDataset(x, torch.arange(16) % CLASSES), 8)
    states = []
    for compiled in (False, True):
        torch.manual_seed(0)  # spectral norm draws its first vectors
        model = cls(copy.deepcopy(g), copy.deepcopy(d), latent_dim=LATENT, compile=compiled, **extra)
        model.lrs = (1e-4, 1e-4)
        with caplog.at_level(logging.INFO):
            trainer(tmp_path, max_steps=2).fit(model, data)
        states.append(weights(model))
    assert not [record for record in caplog.records if "stays eager" in record.getMessage()]
    for key, value in states[0].items():
        assert torch.allclose(states[1][key].float(), value.float(), atol=5e-4), key


# does it pay?


class Clock:
    """A clock on which compiled passes take ``compiled`` seconds and eager ones take one."""

    def __init__(self, model, compiled):
        self.model, self.compiled, self.now = model, compiled, 0.0
        model.discriminator.register_forward_pre_hook(self.tick)

    def tick(self, module, inputs):
        self.now += 1.0 if getattr(module._compiled_call_impl, "rests", True) else self.compiled

    def perf_counter(self):
        return self.now


@needs_penalties
@pytest.mark.parametrize(
    ("compiled", "sentence"),
    [(1.4, "1.40 of the time of eager ones: leave compile out"), (0.5, "0.50 of the time of eager ones")],
)
def test_it_tells_whether_it_pays(compiled, sentence, told, monkeypatch, tmp_path):
    ends = []
    for asked in (True, False):
        model = build("GAN", compile=True, ema_decay=0.9, augment=ADA(every=2), regularizers=[LeCam()])
        clock = Clock(model, compiled)
        monkeypatch.setattr(compiling.time, "perf_counter", clock.perf_counter)
        monkeypatch.setattr(module, "_COMPILED_BY", 3 if asked else 100)
        ends.append(fit(model, tmp_path, 6))
    assert [message for message in told if "time of eager" in message] == [f"compile: compiled steps take {sentence}"]
    assert_close(*ends, atol=0)

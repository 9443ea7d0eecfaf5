"""What cannot go well together is said before training starts, with its name; what can is left in peace."""

import re
import shlex
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning import LightningDataModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.optim import SGD, Adam, RMSprop
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler, TensorDataset
from toys import LATENT, MODELS, Batches, Discriminator, Generator, build, images, loader, trainer

from lit_gans.augment import ADA
from lit_gans.data import ImageDataModule
from lit_gans.models import GAN, R3GAN, SNGAN, WGAN, WGANGP, AdaptiveClip, StyleGAN2
from lit_gans.preflight.compatibility import RULES, check_compatibility, compatibility_table
from lit_gans.regularizers import R1, R2, GradientPenalty, LeCam, PathLength, Regularizer

PAGE = Path(__file__).parents[2] / "docs" / "before-training.md"
COMMAND = 'python -c "from lit_gans.preflight.compatibility import compatibility_table; print(compatibility_table())"'


class Beyond(Discriminator):
    """A discriminator with more layers after the last, or with batch norm as its second."""

    def __init__(self, *more, norm=None):
        super().__init__(answer="flat")
        layers = [*self.body, nn.Linear(4, 1)]
        layers = layers if norm is None else [layers[0], norm, *layers[1:]]
        self.body = nn.Sequential(*layers, *more)


class PathByName(Regularizer):
    """A penalty of the generator that differentiates through its gradient only by name."""

    name, player = "path_length", "generator"

    def forward(self, model, real, fake):
        return fake.x.square().mean()


class Plain(PathByName):
    """A penalty of the discriminator without any gradient."""

    name, player, double_backward = "plain", "discriminator", False


def half():
    """A Trainer in 16-mixed on the CPU, where the flag alone would become bf16-mixed."""
    return {"plugins": MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=64.0))}


def gan(cls=GAN, generator=None, discriminator=None, **kwargs):
    torch.manual_seed(0)
    return cls(generator or Generator(), discriminator or Discriminator(), latent_dim=LATENT, **kwargs)


def sentences(model, tmp_path, data=None, **flags):
    """All that ``fit`` says by the rules, by key: warnings, and the error that ended it before a weight moved."""
    before = [p.clone() for p in model.parameters()]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            trainer(tmp_path, **{"max_steps": 1, **flags}).fit(model, loader() if data is None else data)
            said = [("warning", str(warning.message)) for warning in caught]
        except ValueError as error:
            assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
            said = [("warning", str(warning.message)) for warning in caught] + [("error", str(error))]
    found = {}
    for level, text in said:
        for rule in RULES:
            if text.endswith(f": {rule.reason}; {rule.remedy}"):
                assert level == rule.level
                assert rule.key not in found
                found[rule.key] = text.partition(f": {rule.reason}")[0]
    return found


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("flags", [{}, {"precision": "bf16-mixed"}], ids=["32", "bf16"])
def test_the_models_on_plain_networks_are_left_in_peace(name, flags, tmp_path):
    steps = {"max_steps": 17} if name == "StyleGAN2" else {}  # its penalties are lazy: shorter runs are warned of
    assert sentences(build(name), tmp_path, **flags, **steps) == {}


# batch norm


NORM = "discriminator.body.1 (BatchNorm1d)"


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda d: gan(WGANGP, discriminator=d), f"{NORM} with the gradient penalty of WGANGP"),
        (lambda d: gan(discriminator=d, regularizers=[R1()]), f"{NORM} with the gradient penalty of R1"),
        (lambda d: gan(discriminator=d, regularizers=[Plain(1.0), R1()]), f"{NORM} with the gradient penalty of R1"),
        (lambda d: gan(discriminator=d, regularizers=[Plain(1.0), PathByName(1.0)]), None),
        (lambda d: gan(WGAN, discriminator=d), None),
    ],
)
def test_batch_norm_and_gradient_penalty(make, found, tmp_path):
    expected = {} if found is None else {"batch_norm_and_penalty": found}
    assert sentences(make(Beyond(norm=nn.BatchNorm1d(16))), tmp_path) == expected


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 16), nn.LayerNorm(16), nn.BatchNorm1d(16).eval()])
def test_norms_that_keep_samples_apart_go_with_a_gradient_penalty(norm, tmp_path):
    model = gan(WGANGP, Generator(norm=True), Beyond(norm=norm))
    assert sentences(model, tmp_path) == {}


def test_a_batch_norm_without_running_statistics_mixes_samples_in_eval_too(tmp_path):
    model = gan(WGANGP, discriminator=Beyond(norm=nn.BatchNorm1d(16, track_running_stats=False).eval()))
    assert sentences(model, tmp_path).keys() == {"batch_norm_and_penalty"}


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "images"),
    [
        (7, 1, "7 images"),
        (8, 1, None),
        (32, 4, None),
        (28, 4, "28 images in accumulate=4 parts, the smallest of 7"),
        (33, 4, "33 images in accumulate=4 parts, the smallest of 6"),
        (17, 2, None),
    ],
)
def test_batch_norm_on_few_images(batch_size, accumulate, images, tmp_path):
    expected = {} if images is None else {"batch_norm_of_few": f"generator.body.1 (BatchNorm1d) on batches of {images}"}
    model = gan(generator=Generator(norm=True), accumulate=accumulate)
    assert sentences(model, tmp_path, loader(batch_size, batch_size)) == expected
    assert sentences(gan(accumulate=accumulate), tmp_path, loader(batch_size, batch_size)) == {}


def test_several_layers_are_counted(tmp_path):
    model = gan(generator=Generator(norm=True), discriminator=Beyond(norm=nn.BatchNorm1d(16)))
    found = "discriminator.body.1 (BatchNorm1d and 1 more) on batches of 4 images"
    assert sentences(model, tmp_path, loader(batch_size=4)) == {"batch_norm_of_few": found}


class Foreign(LightningDataModule):
    """A data module that does not say how large its batches are."""

    def train_dataloader(self):
        return loader(batch_size=4)


ITEMS = TensorDataset(images(8))


@pytest.mark.parametrize(
    ("data", "known"),
    [
        (ImageDataModule("fake", image_size=6, channels=1, batch_size=4, fake_length=8), True),
        (Foreign(), True),
        (DataLoader(ITEMS, batch_sampler=BatchSampler(SequentialSampler(ITEMS), 4, True)), True),
        (Batches((images(4),)), False),
        (DataLoader([images(4)], batch_size=None), False),
    ],
    ids=["our module", "foreign module", "batch sampler", "no loader", "ready batches"],
)
def test_the_batch_size_is_found_or_nothing_is_said(data, known, tmp_path):
    model = gan(generator=Generator(norm=True))
    assert sentences(model, tmp_path, data) == (
        {"batch_norm_of_few": "generator.body.1 (BatchNorm1d) on batches of 4 images"} if known else {}
    )


def test_the_loader_of_a_former_fit_is_forgotten(tmp_path):
    run = trainer(tmp_path, max_steps=1)
    run.fit(gan(), ImageDataModule("fake", image_size=6, channels=1, batch_size=4, fake_length=8))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*noisy mean")
        run.fit(gan(generator=Generator(norm=True)), loader(batch_size=8))


def test_asking_for_the_loader_draws_no_random_number(tmp_path):
    class Drawing(Foreign):
        def train_dataloader(self):
            asked.append(torch.rand(1))
            return super().train_dataloader()

    asked = []
    model = gan(generator=Generator(norm=True))
    model.trainer = trainer(tmp_path)
    model.trainer._data_connector.attach_data(model, datamodule=Drawing())
    state = torch.get_rng_state()
    with pytest.warns(UserWarning, match="batches of 4 images"):
        check_compatibility(model, model.trainer)
    assert len(asked) == 1
    assert torch.equal(torch.get_rng_state(), state)


def attached(tmp_path, batch_size=8, **flags):
    """A Trainer that is about to train."""
    run = trainer(tmp_path, **flags)
    run._data_connector.attach_data(build("GAN"), train_dataloaders=loader(batch_size=batch_size))
    return run


def processes(tmp_path, monkeypatch, number=2, **flags):
    """A Trainer that knows of so many processes and has started none."""
    monkeypatch.setattr(Trainer, "world_size", number)
    return attached(tmp_path, devices=number, strategy="ddp", **flags)


def test_batch_norm_in_several_processes(tmp_path, monkeypatch):
    model = gan(generator=Generator(norm=True))
    run = processes(tmp_path, monkeypatch)
    with pytest.warns(UserWarning, match=re.escape("generator.body.1 (BatchNorm1d) in 2 processes: each normalises")):
        check_compatibility(model, run)
    synchronised = processes(tmp_path, monkeypatch, sync_batchnorm=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_compatibility(model, synchronised)
        check_compatibility(gan(generator=nn.SyncBatchNorm.convert_sync_batchnorm(Generator(norm=True))), run)
        check_compatibility(gan(), run)
        check_compatibility(model, processes(tmp_path, monkeypatch, number=1))


@pytest.mark.filterwarnings("ignore:.*in . processes")
def test_batch_norm_that_is_not_synchronised_counts_the_images_of_one_process(tmp_path, monkeypatch):
    run = processes(tmp_path, monkeypatch, batch_size=4)
    with pytest.warns(UserWarning, match="on batches of 4 images"):
        check_compatibility(gan(generator=Generator(norm=True)), run)


@pytest.mark.filterwarnings("ignore:.*in . processes")
def test_synchronised_batch_norm_counts_the_images_of_all_processes(tmp_path, monkeypatch):
    model = gan(generator=Generator(norm=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_compatibility(model, processes(tmp_path, monkeypatch, batch_size=4, sync_batchnorm=True))
    with pytest.warns(UserWarning, match="on batches of 3 images"):
        check_compatibility(model, processes(tmp_path, monkeypatch, batch_size=3, sync_batchnorm=True))


# ranges


@pytest.mark.parametrize("last", [nn.Sigmoid(), nn.LogSigmoid(), nn.Softmax(0)])
@pytest.mark.parametrize("after", [[], [nn.Identity(), nn.Unflatten(1, (1, 1))]], ids=["last", "reshaped"])
@pytest.mark.parametrize("data", [None, Batches((images(8),))], ids=["loader", "no loader"])
def test_a_discriminator_that_ends_in_probabilities_is_refused(last, after, data, tmp_path):
    model = gan(SNGAN if data is None else GAN, discriminator=Beyond(last, *after))
    assert sentences(model, tmp_path, data) == {"squashed_logits": f"discriminator.body.4 ({type(last).__name__})"}


def test_a_sigmoid_that_classes_pass_through_too_is_refused(tmp_path):
    model = build("CGAN")
    model.discriminator.body[2] = nn.Sequential(nn.Linear(16, 1), nn.Sigmoid())
    assert sentences(model, tmp_path) == {"squashed_logits": "discriminator.body.2.1 (Sigmoid)"}


class Gated(Discriminator):
    """A sigmoid within the network, registered after the last layer."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(1, 1), nn.Sigmoid())

    def forward(self, x, y=None):
        logits = super().forward(x)
        return logits * self.gate(logits)


def test_a_sigmoid_within_the_discriminator_is_left_in_peace(tmp_path):
    model = gan(discriminator=Gated())
    assert sentences(model, tmp_path) == {}
    assert not model.discriminator.gate[1]._forward_hooks


def test_a_loss_of_ones_own_may_take_probabilities(tmp_path):
    class OnProbabilities(GAN):
        def discriminator_loss(self, real, fake):
            return {"real": -self.discriminate(real).log().mean(), "fake": -(1 - self.discriminate(fake)).log().mean()}

    assert sentences(gan(OnProbabilities, discriminator=Beyond(nn.Sigmoid())), tmp_path) == {}


def test_looking_for_the_end_changes_nothing(tmp_path):
    torch.manual_seed(0)
    discriminator = Beyond(nn.Dropout(0.5), nn.Sigmoid(), norm=nn.BatchNorm1d(16))
    model = gan(generator=Generator(norm=True, dropout=0.5), discriminator=discriminator)
    model.generator.body[1].eval()
    model.trainer = attached(tmp_path)
    before, modes = {k: v.clone() for k, v in model.state_dict().items()}, [m.training for m in model.modules()]
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match=r"discriminator\.body\.6 \(Sigmoid\)"):
        check_compatibility(model, model.trainer)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert modes == [m.training for m in model.modules()]
    assert not discriminator.body[6]._forward_hooks


@pytest.mark.parametrize("last", [nn.Sigmoid(), nn.ReLU()])
def test_a_generator_that_draws_nothing_below_0_is_refused_by_its_images(last, tmp_path):
    generator = Generator()
    generator.body[-1] = nn.Sequential(nn.Hardtanh(), last)
    with pytest.raises(ValueError, match=r"generator's images span \[0.*, the data \[-0.9.*\]: with a sigmoid at its"):
        trainer(tmp_path, max_steps=1).fit(gan(generator=generator), loader())
    assert "range" in {rule.key for rule in RULES}


# clipping of weights


@pytest.mark.parametrize("norm", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm])
def test_spectral_norm_and_clipping_of_weights(norm, tmp_path):
    def normed(cls):
        discriminator = Discriminator()
        norm(discriminator.body[2])
        return sentences(gan(cls, discriminator=discriminator), tmp_path)

    assert normed(WGAN) == {
        "spectral_norm_and_clipping": "spectral norm of discriminator.body.2 with clip=0.01",
    }
    assert normed(GAN) == normed(WGANGP) == {}
    generator = Generator()
    norm(generator.body[0])
    assert sentences(gan(WGAN, generator), tmp_path) == {}


def test_other_parametrizations_bear_clipping(tmp_path):
    discriminator = Discriminator()
    nn.utils.parametrizations.weight_norm(discriminator.body[0])
    assert sentences(gan(WGAN, discriminator=discriminator), tmp_path) == {}


@pytest.mark.parametrize(
    ("optimizer", "found"),
    [
        (Adam, "Adam with betas[0]=0.9"),
        (lambda parameters: Adam(parameters, betas=(0.5, 0.9)), "Adam with betas[0]=0.5"),
        (partial(SGD, lr=0.1, momentum=0.8), "SGD with momentum=0.8"),
        (partial(RMSprop, momentum=0.1), "RMSprop with momentum=0.1"),
        (partial(Adam, betas=(0.0, 0.9)), None),
        (partial(SGD, lr=0.1), None),
        (RMSprop, None),
        (None, None),
    ],
)
def test_momentum_and_clipping_of_weights(optimizer, found, tmp_path):
    expected = {} if found is None else {"momentum_and_clipping": f"d_optimizer, {found}, with clip=0.01"}
    assert sentences(gan(WGAN, d_optimizer=optimizer), tmp_path) == expected
    assert sentences(gan(WGAN, g_optimizer=optimizer), tmp_path) == {}
    assert sentences(gan(d_optimizer=optimizer), tmp_path) == {}


# precision


@pytest.mark.parametrize("player", ["d", "g"])
@pytest.mark.parametrize("make", [partial(Adam, fused=True), lambda parameters: SGD(parameters, lr=0.1, fused=True)])
def test_fused_optimizers_and_clipping_in_half_precision(player, make, tmp_path):
    name = "Adam" if isinstance(make, partial) else "SGD"

    def fit(optimizer, clip, flags):
        arguments = {f"{player}_optimizer": optimizer, f"{player}_clip": clip}
        return sentences(gan(**arguments), tmp_path, **flags)

    found = {"fused_and_clip": f"{player}_optimizer, a fused {name}, with {player}_clip under 16-mixed"}
    assert fit(make, 1.0, half()) == fit(make, AdaptiveClip(), half()) == found
    assert fit(make, None, half()) == fit(make, 1.0, {}) == fit(make, 1.0, {"precision": "bf16-mixed"}) == {}
    assert fit(Adam, 1.0, half()) == fit(None, 1.0, half()) == {}
    other = {"d": "g", "g": "d"}[player]
    assert sentences(gan(**{f"{player}_optimizer": make, f"{other}_clip": 1.0}), tmp_path, **half()) == {}


def test_an_optimizer_made_by_an_override_is_looked_at_too(tmp_path):
    class Fused(GAN):
        def configure_optimizers(self):
            return [Adam(network.parameters(), fused=True) for network in (self.discriminator, self.generator)]

    assert sentences(gan(Fused, g_clip=1.0), tmp_path, **half()) == {
        "fused_and_clip": "g_optimizer, a fused Adam, with g_clip under 16-mixed"
    }


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: gan(WGANGP), "WGANGP"),
        (lambda: gan(regularizers=[R1()]), "R1"),
        (lambda: gan(regularizers=[PathByName(1.0)]), "PathByName"),
        (lambda: gan(regularizers=[Plain(1.0)]), None),
        (gan, None),
    ],
)
def test_gradient_penalties_in_half_precision(make, found, tmp_path):
    sentence = f"precision='16-mixed' with the gradient penalty of {found}"
    assert sentences(make(), tmp_path, **half()) == ({"half_precision_and_penalty": sentence} if found else {})
    assert sentences(make(), tmp_path, precision="bf16-mixed") == {}


# lazy penalties


@pytest.mark.parametrize(
    ("regularizer", "n_critic", "max_steps", "due"),
    [
        (R1(every=6), 1, 6, 6),
        (R1(every=6), 3, 6, 6),
        (R1(every=5), 1, 6, None),
        (R1(every=1), 1, 1, None),
        (PathByName(1.0, every=3), 2, 7, 6),
        (PathByName(1.0, every=3), 2, 8, None),
        (PathByName(1.0, every=4), 2, 8, 8),
        (PathByName(1.0, every=1), 2, 2, None),
        (Plain(1.0, every=9), 1, -1, None),
    ],
)
def test_lazy_penalties_that_training_does_not_reach(regularizer, n_critic, max_steps, due, tmp_path):
    """Counted, too: what is warned of is evaluated once."""
    calls = []
    regularizer.register_forward_pre_hook(lambda *_: calls.append(1))
    regularizer.name = "lazy"
    model = gan(n_critic=n_critic, regularizers=[Plain(1.0, every=1), regularizer])
    flags = {"max_steps": max_steps, **({"max_epochs": 1} if max_steps == -1 else {})}
    named = f"{type(regularizer).__name__}(every={regularizer.every})"
    found = f"{named}, due every {due} steps, with max_steps={max_steps}"
    rows = DataLoader(TensorDataset(images(48)), 8)
    assert sentences(model, tmp_path, rows, **flags) == ({} if due is None else {"lazy_beyond_the_end": found})
    assert max_steps in (-1, 1, 2) or (len(calls) == 1) is (due is not None)


def test_a_trial_run_is_not_told_of_lazy_penalties(tmp_path):
    assert sentences(gan(regularizers=[R1(every=16)]), tmp_path, fast_dev_run=2) == {}


# the whole


class Elsewhere(nn.Module):
    """A discriminator whose layers take no images of the generator: it asks for a state that was never set."""

    def __init__(self):
        super().__init__()
        self.weight, self.gate = nn.Parameter(torch.zeros(1)), nn.Sigmoid()

    def forward(self, x):
        raise KeyError("not yet")


def test_what_cannot_be_played_is_left_to_training(tmp_path):
    model = gan(discriminator=Elsewhere())
    check_compatibility(model, attached(tmp_path))


def test_all_that_is_found_is_said(tmp_path):
    model = gan(WGAN, Generator(norm=True), Beyond(norm=nn.BatchNorm1d(16)), regularizers=[R1(every=2)])
    found = sentences(model, tmp_path, loader(batch_size=4), **half())
    assert found.keys() == {
        "batch_norm_and_penalty",
        "batch_norm_of_few",
        "half_precision_and_penalty",
        "lazy_beyond_the_end",
    }


def test_nothing_is_said_where_nothing_is_trained(tmp_path):
    model = gan(discriminator=Beyond(nn.Sigmoid()))
    trainer(tmp_path).validate(model, loader(), verbose=False)


def test_the_page_holds_the_table():
    (table,) = re.findall(r"<!-- compatibility -->\n(.*)<!-- /compatibility -->", PAGE.read_text("utf-8"), re.DOTALL)
    assert table == compatibility_table() + "\n", f"put between the marks what this prints: {COMMAND}"


def test_the_command_prints_the_table(capsys):
    exec(shlex.split(COMMAND)[2], {})
    assert capsys.readouterr().out == compatibility_table() + "\n"


# packs, slopes, second derivatives


@pytest.mark.parametrize(
    ("name", "n", "told"),
    [
        ("PacGAN", 9, "a last batch of 1 image, where PacGAN needs packs of 2: training would end in it"),
        ("EBGAN", 9, "a last batch of 1 image, where EBGAN needs at least 2"),
        ("EBGAN", 10, None),
        ("PacGAN", 10, None),
        ("GAN", 9, None),
    ],
)
@pytest.mark.parametrize("module", [False, True])
def test_a_last_batch_that_cannot_be_learned_from(name, n, told, module, tmp_path):
    data = loader(n, batch_size=4)
    if module:
        data = ImageDataModule(
            "fake", image_size=6, channels=1, batch_size=4, fake_length=n, fake_classes=3, drop_last=False
        )
    run = trainer(tmp_path, max_epochs=1)
    if told is None:
        run.fit(build(name), data)
        assert run.global_step == 3
    else:
        with pytest.raises(ValueError, match=told):
            run.fit(build(name), data)


def test_packs_that_do_not_divide_the_batch(tmp_path):
    model = build("PacGAN")
    with pytest.raises(ValueError, match=r"pack=2 and batches of 7 images: the last samples .* change the batch size"):
        trainer(tmp_path, max_steps=1).fit(model, loader(batch_size=7))


def test_penalties_that_ask_for_different_slopes(tmp_path):
    both = [R1(1.0), GradientPenalty()]
    with pytest.raises(ValueError, match=r"R1 \(a slope of 0\) and GradientPenalty \(a slope of 1\): no discriminator"):
        trainer(tmp_path, max_steps=1).fit(gan(regularizers=both), loader())
    for together in ([R1(1.0), R2(1.0)], [R1(1.0), GradientPenalty(one_sided=True)], [GradientPenalty(), LeCam()]):
        assert sentences(gan(regularizers=together), tmp_path) == {}


class Once(torch.autograd.Function):
    """Twice its input, which can be differentiated but once."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return 2 * gradient


@pytest.mark.parametrize(
    "make", [lambda d: gan(WGANGP, discriminator=d), lambda d: gan(discriminator=d, regularizers=[R1()])]
)
def test_layers_without_a_second_derivative(make, tmp_path):
    class Doubled(Discriminator):
        def forward(self, x):
            return super().forward(Once.apply(x))

    with pytest.raises(ValueError, match=r"gradient penalty of (WGANGP|R1) and Doubled \(one of its"):
        trainer(tmp_path, max_steps=1).fit(make(Doubled()), loader())
    assert sentences(gan(discriminator=Doubled()), tmp_path) == {}


@pytest.mark.parametrize(
    "make", [lambda g: gan(StyleGAN2, generator=g), lambda g: gan(generator=g, regularizers=[PathLength()])]
)
def test_a_generator_without_a_second_derivative(make, tmp_path):
    class Doubled(Generator):
        def forward(self, z):
            return super().forward(Once.apply(z))

    with pytest.raises(ValueError, match=r"path lengths of (StyleGAN2|PathLength) and Doubled \(one of its"):
        trainer(tmp_path, max_steps=1).fit(make(Doubled()), loader())
    assert sentences(gan(WGANGP, generator=Doubled()), tmp_path) == {}
    assert sentences(gan(StyleGAN2, generator=Doubled(), pl_weight=0.0, r1_every=1), tmp_path) == {}


def test_a_layer_without_a_second_derivative_deep_within(tmp_path):
    class Layer(nn.Module):
        def forward(self, x):
            return Once.apply(x)

    deep = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), Layer(), nn.Softplus(), nn.Linear(8, 1))
    with pytest.raises(ValueError, match=r"gradient penalty of R1 and Sequential \(one of its"):
        trainer(tmp_path, max_steps=1).fit(gan(discriminator=deep, regularizers=[R1(1.0)]), loader())


def test_a_papers_own_slope_and_an_add_ons(tmp_path):
    found = sentences(gan(WGANGP, regularizers=[R1(1.0)]), tmp_path)
    assert found == {"own_and_added_slopes": "R1 (a slope of 0) on WGANGP (a slope of 1)"}
    assert sentences(gan(WGANGP, regularizers=[GradientPenalty()]), tmp_path) == {}
    assert sentences(gan(R3GAN, regularizers=[GradientPenalty(center=0.0, at="interpolated")]), tmp_path) == {}


def test_adaptive_augmentation_where_signs_say_nothing(tmp_path):
    found = sentences(build("RaGAN", augment=ADA(filter=False)), tmp_path)
    assert found == {"adaptive_without_sign": "ADA on RaGAN"}
    assert sentences(build("GAN", augment=ADA()), tmp_path) == {}

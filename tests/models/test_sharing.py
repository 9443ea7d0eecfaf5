"""Terms of one update share forward passes, and are what they are without."""

from copy import deepcopy

import pytest
import torch
from toys import LATENT, build, images

from benchmarks.sharing import apart
from lit_gans.functional import Batch
from lit_gans.game import loop
from lit_gans.game.compiling import compile_networks
from lit_gans.game.rounds import Round, may_show_together
from lit_gans.models import GAN
from lit_gans.networks.stylegan2 import minibatch_std
from lit_gans.regularizers import R1, R2, Consistency, GradientPenalty, LeCam, Regularizer

ADD_ONS = {
    "R1": [R1(2.0)],
    "R2": [R2(2.0)],
    "both": [R1(2.0), R2(3.0)],
    "twice the same slope": [R1(2.0), GradientPenalty(1.0, center=0.0, at="real")],
    "between": [GradientPenalty()],
    "LeCam": [LeCam()],
    "bCR": [Consistency(fake=1.0)],
    "many": [R1(1.0, every=2), LeCam(), Consistency(fake=1.0)],
}
# real and generated images go together, but where slopes are taken at one of the two
PASSES = {"R1": 2, "R2": 2, "both": 2, "twice the same slope": 2, "between": 2, "LeCam": 1, "bCR": 3, "many": 4}


def gradients(model, monkeypatch, share, precision=torch.float64, step=0, other_labels=False):
    """Terms and gradients of the discriminator of one play."""
    with monkeypatch.context() as patch:
        if not share:
            patch.setattr(loop, "playing_round", apart)
        model.to(precision).reseed(0)
        model.reseed_global()
        real, z = images(8).to(precision), model.draw_latents(8, model.rng).to(precision)
        y = torch.arange(8) % 3 if model.num_classes else None
        y_fake = (y + 1) % 3 if other_labels else y
        model.zero_grad()
        terms = model.play("discriminator", Batch(real, y), Batch(z, y_fake), step)
        torch.stack(list(terms.values())).sum().backward()
    return terms, [p.grad.clone() for p in model.discriminator.parameters()]


def counted(model):
    """The list that grows with each forward pass of the discriminator that something is learnt from."""
    passes = []

    def count(module, inputs):
        if torch.is_grad_enabled():
            passes.append(len(inputs[0]))

    model.discriminator.register_forward_pre_hook(count)
    return passes


@pytest.mark.parametrize("name", ADD_ONS)
@pytest.mark.parametrize("variant", ["GAN", "R3GAN", "WGANGP", "ACGAN", "CGAN", "EBGAN", "PacGAN", "UnrolledGAN"])
def test_shared_terms_and_gradients_are_those_of_terms_apart(variant, name, monkeypatch):
    if variant == "R3GAN" and name in ("R1", "R2", "both", "twice the same slope", "many"):
        pytest.skip("it has these terms itself")
    models = [build(variant, regularizers=deepcopy(ADD_ONS[name])) for _ in range(2)]
    (terms, shared), (alone, apart) = (gradients(m, monkeypatch, s) for m, s in zip(models, (True, False), strict=True))
    assert terms.keys() == alone.keys()
    for term in terms:
        assert terms[term].item() == pytest.approx(alone[term].item(), rel=1e-9, abs=1e-12)
    for one, other in zip(shared, apart, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ADD_ONS)
@pytest.mark.parametrize("variant", ["GAN", "ACGAN"])
def test_the_same_images_are_shown_once(variant, name, monkeypatch):
    model = build(variant, regularizers=deepcopy(ADD_ONS[name]))
    passes = counted(model)
    gradients(model, monkeypatch, share=True)
    assert len(passes) == PASSES[name]


def test_r3gan_shows_each_kind_once(monkeypatch):
    model = build("R3GAN")
    passes = counted(model)
    gradients(model, monkeypatch, share=True)
    assert len(passes) == 2


def test_a_plain_loss_of_images_shown_apart_is_gathered_without_anything_in_between(monkeypatch):
    model, seen = build("GAN"), []

    class Plain(GAN):
        def discriminator_loss(self, real, fake):
            seen.append((self.round, real.x.requires_grad))
            return super().discriminator_loss(real, fake)

    model.__class__ = Plain
    model.together = False
    gradients(model, monkeypatch, share=True)
    assert seen == [(None, False)]


def test_a_round_ends_with_an_error_too():
    class Broken(R1):
        def forward(self, model, real, fake):
            assert isinstance(model.round, Round)
            raise RuntimeError("broken")

    model = build("GAN", regularizers=[Broken(1.0)])
    model.reseed(0)
    with pytest.raises(RuntimeError, match="broken"):
        model.play("discriminator", images(8), Batch(torch.randn(8, LATENT)), step=0)
    assert model.round is None


def test_a_penalty_under_autocast_has_a_forward_pass_of_its_own_in_float32():
    model, dtypes = build("GAN", regularizers=[R1(1.0), LeCam()]), []
    model.discriminator.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    model.reseed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model.play("discriminator", images(8), Batch(torch.randn(8, LATENT)), step=0)
    assert dtypes == [torch.bfloat16, torch.bfloat16, torch.float32]


def test_losses_on_held_out_data_are_shared_too(monkeypatch):
    model, alone = (build("R3GAN", regularizers=[LeCam()]) for _ in range(2))
    passes = counted(model)
    terms, _ = gradients(model, monkeypatch, share=True, step=None)
    expected, _ = gradients(alone, monkeypatch, share=False, step=None)
    assert len(passes) == 2
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {name: term.item() for name, term in expected.items()}, rel=1e-9
    )


def test_validation_without_gradients():
    """Slopes are then taken of an answer of their own."""
    model = build("R3GAN", regularizers=[LeCam()])
    model.reseed(0)
    with torch.no_grad():
        terms = model.play("discriminator", images(8), Batch(torch.randn(8, LATENT)), step=None)
    assert terms["r1"] > 0


@pytest.mark.parametrize("variant", ["ACGAN", "CGAN", "ReACGAN"])
def test_labels_of_generated_images_that_differ(variant, monkeypatch):
    model, alone = (build(variant, regularizers=[LeCam()]).eval() for _ in range(2))  # spectral norm rests
    passes = counted(model)
    (terms, shared), (others, apart) = (
        gradients(m, monkeypatch, share, other_labels=True) for m, share in ((model, True), (alone, False))
    )
    assert len(passes) == (2 if variant == "ReACGAN" else 1)
    assert terms["lecam"].item() == pytest.approx(others["lecam"].item(), rel=1e-9)
    assert all(torch.allclose(one, other, rtol=1e-8, atol=1e-11) for one, other in zip(shared, apart, strict=True))


class OfTheBatch(torch.nn.Module):
    """Samples less their mean, as in batch norm, by somebody's own hand."""

    def forward(self, x):
        return x - 0.1 * x.mean(0)


class Noise(torch.nn.Module):
    def forward(self, x):
        return x + 0.1 * torch.randn_like(x)


class Wandering(torch.nn.Module):
    """Its answers move with each pass."""

    def __init__(self):
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        self.passes += 1
        return x * (1 + 0.1 * self.passes)


@pytest.mark.parametrize("layer", [OfTheBatch(), Noise(), Wandering()], ids=lambda layer: type(layer).__name__)
def test_images_are_shown_apart_where_that_makes_a_difference(layer, monkeypatch):
    model, alone = (build("GAN", regularizers=[LeCam()]) for _ in range(2))
    for one in (model, alone):
        one.discriminator.body.insert(1, deepcopy(layer))
    passes = counted(model)
    terms, others = (gradients(m, monkeypatch, s)[0] for m, s in ((model, True), (alone, False)))
    assert passes == [8, 8]
    if not isinstance(layer, (Noise, Wandering)):  # which say another thing in each pass
        assert terms["real"].item() == others["real"].item()
        assert terms["lecam"].item() == pytest.approx(others["lecam"].item(), rel=1e-9)


class Deviation(torch.nn.Module):
    """The standard deviation of a minibatch, of flat features."""

    def forward(self, x):
        return (
            minibatch_std(x[..., None, None]).flatten(1)[:, :-1] + minibatch_std(x[..., None, None]).flatten(1)[:, -1:]
        )


def test_the_deviation_of_a_minibatch_is_that_of_one_kind():
    model = build("GAN")
    model.discriminator.body.insert(1, Deviation())
    assert not may_show_together(model, Batch(images(8)), Batch(images(8, seed=1)))


def test_convolutions_gain_nothing():
    model = GAN(torch.nn.Linear(LATENT, 36), torch.nn.Sequential(torch.nn.Conv2d(1, 1, 6)), latent_dim=LATENT)
    real, fake = (Batch(torch.rand(8, 1, 6, 6) * 2 - 1) for _ in range(2))
    assert not may_show_together(model, real, fake)


def test_to_look_changes_nothing():
    model = build("GAN")
    model.discriminator.body.insert(1, Wandering())
    torch.manual_seed(3)
    state = torch.get_rng_state()
    assert not may_show_together(model, Batch(images(8)), Batch(images(8, seed=1)))
    assert model.discriminator.body[1].passes == 0
    assert torch.equal(torch.get_rng_state(), state)


def test_answers_that_are_all_alike_tell_nothing():
    model = build("GAN")
    for parameter in model.discriminator.parameters():
        torch.nn.init.zeros_(parameter)
    assert not may_show_together(model, Batch(images(8)), Batch(images(8, seed=1)))


@pytest.mark.parametrize(("variant", "n", "together"), [("GAN", 8, True), ("GAN", 6, False), ("RaGAN", 8, False)])
def test_sums_that_would_not_cancel_to_the_last_bit_are_kept_apart(variant, n, together):
    assert may_show_together(build(variant), Batch(images(n)), Batch(images(n, seed=1))) is together


def test_the_last_bias_has_no_gradient_where_logits_may_move_together(monkeypatch):
    model = build("WGANGP")
    passes = counted(model)
    bias = gradients(model, monkeypatch, share=True, precision=torch.float32)[1][-1]
    assert passes[0] == 16
    assert bias.tolist() == [0.0] * len(bias)


def test_a_compiled_network_is_shown_one_size_of_batch():
    model = build("GAN")
    compile_networks(model)
    assert not may_show_together(model, Batch(images(8)), Batch(images(8, seed=1)))


@pytest.mark.parametrize(("penalties", "passes"), [([LeCam()], 2), ([LeCam(), R1(1.0)], 3)])
def test_what_changes_with_each_pass_changes_once_for_each_kind_and_each_slope(penalties, passes, monkeypatch):
    model = build("GAN", regularizers=deepcopy(penalties))
    model.discriminator.body.insert(1, torch.nn.BatchNorm1d(16))
    gradients(model, monkeypatch, share=True)
    assert model.discriminator.body[1].num_batches_tracked == passes


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.body.insert(1, torch.nn.BatchNorm1d(16)),
        lambda d: d.body.insert(1, torch.nn.Dropout(0.5)),
        lambda d: torch.nn.utils.parametrizations.spectral_norm(d.body[2]),
        lambda d: torch.nn.utils.spectral_norm(d.body[2]),
    ],
)
def test_a_slope_has_a_pass_of_its_own_where_none_is_like_another(change, monkeypatch):
    """So that terms and gradients are those of eager, compiled and half precision alike."""
    models = [build("GAN", regularizers=[R1(2.0)]) for _ in range(2)]
    for model in models:
        torch.manual_seed(0)
        change(model.discriminator)
    (terms, shared), (alone, apart) = (gradients(m, monkeypatch, s) for m, s in zip(models, (True, False), strict=True))
    assert terms["r1"].item() == alone["r1"].item()
    assert all(torch.equal(one, other) for one, other in zip(shared, apart, strict=True))


def test_a_second_opinion_is_one_of_a_batch_of_ones_own(monkeypatch):
    class TwoOpinions(Regularizer):
        name, double_backward = "opinions", False

        def forward(self, model, real, fake):
            return (model.discriminate(real) - model.discriminate(Batch(real.x, real.y))).square().mean()

    drop = torch.nn.Dropout(0.5)
    for penalty in (TwoOpinions(1.0), Consistency(augment=torch.nn.Identity())):
        model = build("GAN", augment=drop, regularizers=[penalty])
        assert gradients(model, monkeypatch, share=True)[0][penalty.name] > 0


def test_a_paper_that_asks_in_its_own_way_says_so_in_judge(monkeypatch):
    class Twice(GAN):
        def judge(self, x, y=None):
            return super().judge(x, y) * 2

    model, doubled = (build("GAN", regularizers=[LeCam()]) for _ in range(2))
    doubled.__class__ = Twice
    plain, twice = (gradients(m, monkeypatch, share=True)[0] for m in (model, doubled))
    assert twice["lecam"].item() == pytest.approx(4 * plain["lecam"].item())
    assert twice["real"].item() != plain["real"].item()
    x = images(4).double()
    assert torch.allclose(doubled.slope(x), 2 * model.slope(x))


def test_overriding_discriminate_is_refused_with_the_remedy():
    with pytest.raises(TypeError, match=r"Old overrides discriminate\(batch\).*override judge\(x, y=None\)"):

        class Old(GAN):
            def discriminate(self, x, y=None):
                return self.discriminator(x)


def test_a_loss_in_an_autocast_of_its_own_leaves_slopes_in_float32():
    class Own(GAN):
        def discriminator_loss(self, real, fake):
            with torch.autocast("cpu", torch.bfloat16):
                return super().discriminator_loss(real, fake)

    model, dtypes = build("GAN", regularizers=[R1(1.0)]), []
    model.__class__ = Own
    model.discriminator.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    model.reseed(0)
    model.play("discriminator", images(8), Batch(torch.randn(8, LATENT)), step=0)
    assert dtypes == [torch.bfloat16, torch.bfloat16, torch.float32]


def test_an_answer_belongs_to_its_batch():
    asked = []

    def judge(x, y=None):
        asked.append((x, y))
        return x.sum(1) * (1 if y is None else y)

    x, y = torch.ones(2, 3), torch.tensor([2.0, 3.0])
    real, fake = Batch(x, y), Batch(x.clone().requires_grad_(), y + 1)
    played = Round(real, fake, slopes=True)
    assert [played.answer(judge, real).tolist() for _ in range(2)] == [[6.0, 9.0]] * 2
    assert len(asked) == 1
    assert played.answer(judge, Batch(x, y)).tolist() == [6.0, 9.0]
    assert played.answer(judge, fake).tolist() == [9.0, 12.0]
    with torch.no_grad():
        assert not played.answer(judge, fake).requires_grad
    assert len(asked) == 4
    assert played.gradient(judge, real) is None  # its images do not require gradients
    assert played.gradient(judge, Batch(fake.x, fake.y)) is None
    assert played.gradient(judge, fake).tolist() == [[3.0] * 3, [4.0] * 3]
    assert played.gradient(judge, fake) is played.gradient(judge, fake)
    assert played.said_of_real(judge).tolist() == [6.0, 9.0]
    assert len(asked) == 4


def test_a_tensor_is_a_batch_without_labels():
    model, x = build("GAN", regularizers=[LeCam()]), images(4)
    assert torch.equal(model.discriminate(x), model.discriminate(Batch(x)))
    assert torch.equal(model.slope(x), model.slope(Batch(x)))
    terms = model.discriminator_loss(x, x), model.discriminator_loss(Batch(x), Batch(x))
    assert terms[0] == terms[1]
    for penalty in (R1(1.0), R1(), R2(1.0), LeCam(), GradientPenalty(at="fake"), Consistency(fake=1.0, latent=1.0)):
        values = []
        for given in (x, Batch(x)):
            model.reseed(0)
            torch.manual_seed(0)
            model.batch_images = 4
            values.append(deepcopy(penalty)(model, given, given).item())
            assert deepcopy(penalty).weight_of(model, given) >= 0
        assert values[0] == values[1]

"""Terms of one update share forward passes, and are what they are without."""

from contextlib import contextmanager
from copy import deepcopy

import pytest
import torch
from toys import LATENT, build, images, loader, trainer

from lit_gans.models import GAN, gan
from lit_gans.models.mechanics.sharing import Answers
from lit_gans.regularizers import R1, R2, Consistency, GradientPenalty, LeCam

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
PASSES = {"R1": 2, "R2": 2, "both": 2, "twice the same slope": 2, "between": 3, "LeCam": 2, "bCR": 4, "many": 4}


@contextmanager
def apart(model, player, penalties, real, fake):
    """Every term pays its own forward passes."""
    yield real, fake


def gradients(model, monkeypatch, share, precision=torch.float64):
    """Terms and gradients of the discriminator of one play."""
    with monkeypatch.context() as patch:
        if not share:
            patch.setattr(gan, "shared_answers", apart)
        model.to(precision).reseed(0)
        model.reseed_global()
        real, z = images(8).to(precision), model.draw_latents(8, model.rng).to(precision)
        y = torch.arange(8) % 3 if model.num_classes else None
        model.zero_grad()
        terms = model.play("discriminator", real, z, y, y, step=0)
        torch.stack(list(terms.values())).sum().backward()
    return terms, [p.grad.clone() for p in model.discriminator.parameters()]


def counted(model):
    """The list that grows with each forward pass of the discriminator."""
    passes = []
    model.discriminator.register_forward_pre_hook(lambda module, inputs: passes.append(len(inputs[0])))
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


def test_a_plain_loss_is_gathered_without_anything_in_between(monkeypatch):
    model, seen = build("GAN"), []

    class Plain(GAN):
        def discriminator_loss(self, real, fake, y):
            seen.append((self.discriminate, real.requires_grad))
            return super().discriminator_loss(real, fake, y)

    model.__class__ = Plain
    gradients(model, monkeypatch, share=True)
    assert seen == [(model.discriminate, False)]


def test_the_method_is_back_after_an_error_too():
    class Broken(R1):
        def forward(self, model, real, fake, y):
            assert isinstance(model.discriminate, Answers)
            raise RuntimeError("broken")

    model = build("GAN", regularizers=[Broken(1.0)])
    model.reseed(0)
    with pytest.raises(RuntimeError, match="broken"):
        model.play("discriminator", images(8), torch.randn(8, LATENT), None, None, step=0)
    assert "discriminate" not in vars(model)


def test_a_penalty_under_autocast_has_a_forward_pass_of_its_own_in_float32():
    model, dtypes = build("GAN", regularizers=[R1(1.0), LeCam()]), []
    model.discriminator.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    model.reseed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model.play("discriminator", images(8), torch.randn(8, LATENT), None, None, step=0)
    assert dtypes == [torch.bfloat16, torch.bfloat16, torch.float32]


def test_losses_on_held_out_data_are_shared_without_gradients(tmp_path):
    model = build("R3GAN", regularizers=[LeCam()])
    run = trainer(tmp_path, max_steps=6, limit_val_batches=2)
    run.fit(model, loader(), loader())
    assert run.callback_metrics["val/d_loss"].isfinite()


def test_an_answer_belongs_to_its_images_and_labels():
    asked = []

    def discriminate(x, y=None):
        asked.append((x, y))
        return x.sum(1) * (1 if y is None else y)

    answers, x, y = Answers(discriminate), torch.ones(2, 3), torch.tensor([2.0, 3.0])
    assert answers(x).tolist() == [3.0, 3.0]
    assert answers(x, y).tolist() == [6.0, 9.0]
    assert answers(x.clone()).tolist() == answers(x).tolist()
    assert len(asked) == 3
    assert answers.input_gradient(x) is None
    leaf = torch.ones(2, 3, requires_grad=True)
    assert answers.input_gradient(leaf, y).tolist() == [[2.0] * 3, [3.0] * 3]
    assert answers.input_gradient(leaf, y) is answers.input_gradient(leaf, y)
    assert len(asked) == 4

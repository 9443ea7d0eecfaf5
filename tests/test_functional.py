"""Properties that hold for every input, searched for counter-examples."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from toys import LATENT, build

from lit_gans.functional import clip_grad_adaptive_, to_uint8
from lit_gans.game.module import parts_of
from lit_gans.models import AdaptiveClip, NormClip, ValueClip

quick = settings(max_examples=60, deadline=None, derandomize=True)


@quick
@given(n=st.integers(1, 500), parts=st.integers(1, 40))
def test_parts_cover_a_batch_once_and_none_is_empty(n, parts):
    slices = list(parts_of(n, parts))
    assert [i for part in slices for i in range(n)[part]] == list(range(n))
    assert len(slices) <= parts
    assert all(len(range(n)[part]) > 0 for part in slices)


@quick
@given(n=st.integers(1, 200), start=st.integers(0, 300), seed=st.integers(0, 2**31))
def test_inputs_depend_on_their_index_alone(n, start, seed):
    model = build("CGAN")
    z, y = model.draw_inputs(n, seed=seed, start=start)
    assert z.shape == (n, LATENT)
    last_z, last_y = model.draw_inputs(1, seed=seed, start=start + n - 1)
    assert torch.equal(last_z[0], z[-1])
    assert last_y[0] == y[-1]
    assert torch.equal(model.draw_inputs(n, y=1, seed=seed, start=start)[0], z)


@quick
@given(scale=st.floats(1e-6, 1e6), factor=st.floats(1e-4, 1.0), rows=st.integers(1, 5), columns=st.integers(1, 5))
def test_adaptive_clipping_bounds_each_unit_keeps_its_direction_and_small_gradients(scale, factor, rows, columns):
    rng = torch.Generator().manual_seed(rows * 7 + columns)
    weight = nn.Parameter(torch.randn(rows, columns, generator=rng))
    gradient = torch.randn(rows, columns, generator=rng) * scale
    weight.grad = gradient.clone()
    clip_grad_adaptive_([weight], factor, 1e-3)
    limit = factor * weight.detach().norm(dim=1).clamp_min(1e-3)
    assert (weight.grad.norm(dim=1) <= limit * (1 + 1e-5)).all()
    small = gradient.norm(dim=1) <= limit
    assert torch.equal(weight.grad[small], gradient[small])
    cosine = torch.nn.functional.cosine_similarity(weight.grad.double(), gradient.double(), dim=1)
    assert cosine.min() > 1 - 1e-5


@quick
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=50))
def test_to_uint8_is_monotone_and_within_half_a_level(values):
    x = torch.tensor(sorted(values))
    levels = to_uint8(x).int()
    assert (levels.diff() >= 0).all()
    inside = x.abs() <= 1
    assert ((levels / 127.5 - 1 - x)[inside].abs() <= 0.5 / 127.5 + 1e-6).all()


@pytest.mark.parametrize(
    "make", [lambda: NormClip(0), lambda: ValueClip(-1), lambda: AdaptiveClip(0), lambda: build("GAN", g_clip=0.0)]
)
def test_limits_that_would_freeze_a_player_are_refused(make):
    with pytest.raises(ValueError, match="must be above 0"):
        make()

"""One thread, so that small tensors are not slowed by waiting for a second; and no trace left in the environment."""

import os

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
if not torch.cuda.is_available():
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # else each step of an optimizer looks again whether there is a driver


def pytest_configure(config):
    """A quarter of the examples by default, all of them where all is asked for."""
    asked = config.option.markexpr
    whole = "exhaustive" in asked and "not exhaustive" not in asked
    settings.register_profile("whole", settings(deadline=None, derandomize=True))
    settings.register_profile("part", settings(max_examples=25, deadline=None, derandomize=True))
    settings.load_profile("whole" if whole else "part")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Whole notebooks in a kernel of their own are for when all is asked for; test_notebooks.py runs them in brief."""
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.exhaustive)


@pytest.fixture(autouse=True)
def _no_seed_left_behind(monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)

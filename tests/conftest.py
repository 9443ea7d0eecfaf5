"""One thread, so that small tensors are not slowed by waiting for a second; and no trace left in the environment."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_seed_left_behind(monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)

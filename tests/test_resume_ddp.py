"""Two gloo processes that are told to end, through one of them, and go on: one launch, and the tests read its notes."""

import pytest
import torch
from interrupted import equal
from launching import python
from toys import MODELS, WIDE

pytestmark = pytest.mark.slow  # the launches

NAMES = {"ddp": list(MODELS), "gan_ddp": list(WIDE)}
CASES = [
    pytest.param(strategy, name, part, marks=[pytest.mark.exhaustive] if strategy == "ddp" else [])
    for strategy, names in NAMES.items()
    for name, part in [*((name, "middle") for name in names), ("DCGAN", "validation")]
]
SCRIPT = """
import os, signal, sys
from pathlib import Path

import torch
from interrupted import At, fit, states
from toys import MODELS, weights

strategy = sys.argv[1]
for name in sys.argv[2:]:
    moments = [("middle", "on_train_batch_start", 7), ("validation", "on_train_batch_end", 9)]
    for part, hook, step in moments[: 1 + (name == "DCGAN")]:
        options = {"strategy": strategy, "devices": 2, "use_distributed_sampler": False}
        notes = {}
        for run in ("whole", "parts", "resumed"):
            folder = Path(f"{name}-{part}-{'whole' if run == 'whole' else 'parts'}")
            told = At(hook, step, lambda: int(os.environ.get("LOCAL_RANK", 0)) == 1 and os.kill(os.getpid(), 15))
            model, trainer, rows, code = fit(
                folder, name, *([told] if run == "parts" else []), resume=run == "resumed", **options
            )
            notes[run] = {"weights": weights(model), "states": states(trainer), "rows": rows, "code": code}
        torch.save(notes, f"{name}-{part}-{trainer.global_rank}.pt")
"""


@pytest.fixture(scope="module")
def notes(request, tmp_path_factory):
    """What each rank noted in each run."""
    folder = tmp_path_factory.mktemp("ddp")
    (folder / "script.py").write_text(SCRIPT)
    done = python("script.py", request.param, *NAMES[request.param], cwd=folder)
    assert done.returncode == 0, done.stderr[-4000:]
    return lambda name, part: [torch.load(folder / f"{name}-{part}-{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize(("notes", "name", "part"), CASES, indirect=["notes"], scope="module")
def test_both_end_after_the_same_step_and_go_on_bit_by_bit(notes, name, part):
    for rank, code in zip(notes(name, part), (143, 0), strict=True):
        whole, parts, resumed = rank["whole"], rank["parts"], rank["resumed"]
        assert (whole["code"], parts["code"], resumed["code"]) == (None, code, None)
        assert equal(whole["weights"], resumed["weights"])  # each rank's own batch statistics among them
        assert equal(whole["states"], resumed["states"])
        assert whole["rows"] == parts["rows"] + resumed["rows"]

"""Two gloo processes, of which one is told to end, or stopped: they end or wait together, and go on bit by bit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from interrupted import equal
from launching import ranks
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
    done = ranks("script.py", request.param, *NAMES[request.param], cwd=folder)
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


STOPPED = """
import os, signal, subprocess, sys, time
from pathlib import Path

import torch
from interrupted import At, fit, states
from toys import weights

def stop():
    if int(os.environ.get("LOCAL_RANK", 0)) == 1:
        subprocess.Popen(["sh", "-c", f"sleep 2; kill -CONT {os.getpid()}"])
        os.kill(os.getpid(), signal.SIGSTOP)

notes, seconds = {}, []
for run in ("whole", "stopped"):
    moments = [("on_train_batch_start", 7), ("on_train_batch_end", 8)]
    clock = [At(hook, step, lambda: seconds.append(time.monotonic())) for hook, step in moments]
    extra = [At("on_train_batch_start", 7, stop)] if run == "stopped" else []
    model, trainer, rows, _ = fit(
        Path(run), "DCGAN", *extra, *clock, strategy=sys.argv[1], devices=2, use_distributed_sampler=False
    )
    notes[run] = {"weights": weights(model), "states": states(trainer), "rows": rows}
notes["seconds"] = [seconds[1] - seconds[0], seconds[3] - seconds[2]]
torch.save(notes, f"{trainer.global_rank}.pt")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no process can be stopped here")
@pytest.mark.exhaustive
@pytest.mark.parametrize("strategy", ["ddp", "gan_ddp"])
def test_a_process_that_is_stopped_is_waited_for_and_both_end_with_the_same_bits(strategy, tmp_path):
    (tmp_path / "script.py").write_text(STOPPED)
    done = ranks("script.py", strategy, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    for rank in (0, 1):
        notes = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for what, value in notes["whole"].items():
            assert equal(value, notes["stopped"][what]), what
    assert torch.load(tmp_path / "0.pt", weights_only=True)["seconds"][1] > 1.5


WORDS = [
    *("fit", "--model", "GAN", "--model.latent_dim=4", "--model.generator", "MLPGenerator", "--model.discriminator"),
    *("MLPDiscriminator", "--data.dataset=digits", "--trainer.accelerator=cpu", "--trainer.devices=2"),
    *("--trainer.strategy", "GANDDPStrategy", "--trainer.strategy.timeout=0:00:25", "--trainer.max_steps=1000000"),
    *("--checkpoint_every=5", "--trainer.limit_val_batches=0", "--trainer.enable_progress_bar=false"),
]


@pytest.mark.exhaustive
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the process to stop in /proc")
def test_a_process_that_stays_stopped_ends_the_run_with_a_sentence_and_leaves_nobody_behind(tmp_path):
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    with (tmp_path / "told.txt").open("w") as told:
        run = subprocess.Popen(
            [sys.executable, "-m", "lit_gans", *WORDS], cwd=tmp_path, env=env, stdout=told, stderr=told
        )
    try:
        while not list(tmp_path.rglob("last.ckpt")):
            assert run.poll() is None, (tmp_path / "told.txt").read_text()
            time.sleep(0.02)
        (other,) = map(int, Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split())
        os.kill(other, signal.SIGSTOP)
        assert run.wait(timeout=120) == 1
    finally:
        run.kill()
    assert "Rank 0 waited 25 s for another rank at global step" in (tmp_path / "told.txt").read_text()
    for _ in range(300):
        if not Path(f"/proc/{other}").exists() or "zombie" in Path(f"/proc/{other}/status").read_text():
            break
        time.sleep(0.1)
    else:
        os.kill(other, signal.SIGKILL)
        pytest.fail("the stopped process was left behind")

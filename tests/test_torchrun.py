"""``torchrun``: two machines of one process each, and a worker that is killed and comes back by itself."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from interrupted import equal

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]  # six launches of processes that import torch

WORDS = [
    *("-m", "lit_gans", "fit", "--model", "DCGAN", "--model.generator", "DCGANGenerator", "--model.ema_decay=0.9"),
    *("--model.discriminator", "DCGANDiscriminator", "--model.generator.width=8", "--model.discriminator.width=8"),
    *("--model.generator.image_size=8", "--model.discriminator.image_size=8", "--model.generator.channels=1"),
    *("--model.discriminator.channels=1", "--data.dataset=digits", "--data.batch_size=32", "--trainer.accelerator=cpu"),
    *("--trainer.log_every_n_steps=3", "--trainer.max_steps=120", "--trainer.val_check_interval=20"),
    *("--checkpoint_every=7", "--sample_every=1000", "--trainer.enable_progress_bar=false"),
    *("--trainer.strategy=gan_ddp",),
]
RUN = Path("runs/dcgan-digits/version_0")


def torchrun(folder, *words):
    folder.mkdir(exist_ok=True)
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    env["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # else a restart may read the addresses of the processes before it
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *words], cwd=folder, env=env, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finished(*processes):
    told = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(told)
    return told


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def workers(agent):
    return [int(pid) for pid in Path(f"/proc/{agent}/task/{agent}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the worker to kill in /proc")
def test_two_machines_are_two_processes_and_a_killed_worker_comes_back(tmp_path):
    address = ["--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    places = ["--trainer.num_nodes=2", "--trainer.devices=1"]
    nodes = [torchrun(tmp_path / "nodes", *address, f"--node-rank={rank}", *WORDS, *places) for rank in (0, 1)]
    finished(*nodes)
    agent = torchrun(
        tmp_path / "elastic", "--standalone", "--nproc-per-node=2", "--max-restarts=2", *WORDS, "--trainer.devices=2"
    )
    checkpoints = tmp_path / "elastic" / RUN / "checkpoints"
    while not (checkpoints / "last.ckpt.previous").exists():
        assert agent.poll() is None, agent.stdout.read()
        time.sleep(0.02)
    os.kill(workers(agent.pid)[1], signal.SIGKILL)
    (told,) = finished(agent)
    assert f"resume: {RUN}/checkpoints/last.ckpt, step" in told
    whole, parts = (
        torch.load(tmp_path / part / RUN / "checkpoints/last.ckpt", weights_only=True) for part in ("nodes", "elastic")
    )
    for key in ("global_step", "state_dict", "optimizer_states", "lit_gans"):
        assert equal(whole[key], parts[key]), key
    rows = [
        list(csv.DictReader((tmp_path / part / RUN / "metrics.csv").read_text().splitlines()))
        for part in ("nodes", "elastic")
    ]
    assert rows[0] == rows[1]
    assert [path.name for path in (tmp_path / "elastic" / RUN).parent.iterdir()] == ["version_0"]

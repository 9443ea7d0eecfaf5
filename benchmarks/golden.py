"""Whether a change of the code's shape left every number as it was, bit by bit.

    python -m benchmarks.golden record before.json      # in the older tree
    python -m benchmarks.golden record after.json       # in the newer one, on the same machine
    python -m benchmarks.golden compare before.json after.json

Numbers differ between kinds of processors, so that a record is of use on one machine alone and none is committed.
A record holds, as digests: twelve steps of each model on small networks, plainly, with an average, in two parts and
with each add-on; the whole checkpoint of each, key by key; two steps of each shipped config on its own networks, and
the resolved config; the events that the guard writes of a run with faults.
"""

import argparse
import hashlib
import json
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "support")]
STEPS = 12
VARIETIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "average": {"ema_decay": 0.9, "d_clip": 0.5, "g_batch": 2},
    "parts": {"accumulate": 2, "n_critic": 2},
}


def add_ons() -> dict[str, Callable[[], dict[str, Any]]]:
    """Arguments that add each penalty and each augmentation to a model."""
    from regularizers.test_regularizers import ADD_ONS

    from lit_gans.augment import ADA, DiffAugment
    from lit_gans.regularizers import R1, LeCam

    found: dict[str, Callable[[], dict[str, Any]]] = {
        name: (lambda make=make: {"regularizers": [make()]}) for name, make in ADD_ONS.items()
    }
    found["R1 and LeCam"] = lambda: {"regularizers": [R1(2.0), LeCam()]}
    found["DiffAugment"] = lambda: {"augment": DiffAugment()}
    found["ADA"] = lambda: {"augment": ADA(every=2)}
    return found


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each plain value or tensor within nested dicts and lists, with its path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}/{key}")
    elif isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{path}/{index}")
    else:
        yield path, value


def digest(value: Any) -> str:
    """A short text that is the same for the same bits."""
    if isinstance(value, torch.Tensor):
        data = value.detach().cpu().contiguous()
        bits = hashlib.sha256(data.view(-1).view(torch.uint8).numpy().tobytes() if data.numel() else b"")
        return f"{data.dtype} {tuple(data.shape)} {bits.hexdigest()[:16]}"
    return re.sub(r"/tmp/\S+?(?=['\"/]|$)", "TMP", repr(value))[:200]


def trained(model: Any, folder: Path, name: str) -> dict[str, str]:
    """Train, and digest the checkpoint and some samples."""
    from toys import loader, trainer

    saver = ModelCheckpoint(folder, filename="end", save_top_k=-1, every_n_train_steps=STEPS)
    run = trainer(folder, max_steps=STEPS, callbacks=[saver], enable_checkpointing=True)
    run.fit(model, loader(n=80, labels=model.num_classes is not None))
    checkpoint = torch.load(folder / "end.ckpt", weights_only=True)
    found = {f"{name}{path}": digest(value) for path, value in leaves(checkpoint)}
    found[f"{name}/samples"] = digest(model.sample(5, seed=3))
    losses = {key: value for key, value in run.callback_metrics.items() if key.startswith("train/")}
    return found | {f"{name}/{key}": digest(value) for key, value in losses.items()}


def of_models() -> Iterator[dict[str, str]]:
    """Each model on small networks, in its varieties and with each add-on that it takes."""
    from toys import MODELS, build

    kinds: dict[str, Callable[[], dict[str, Any]]] = {
        name: (lambda options=options: options) for name, options in VARIETIES.items()
    }
    for name in MODELS:
        for kind, make in (kinds | add_ons()).items():
            with tempfile.TemporaryDirectory() as folder:
                key = f"{name}, {kind}"
                try:
                    yield trained(build(name, seed=1, **make()), Path(folder), key)
                except (ValueError, TypeError, RuntimeError) as refusal:
                    yield {key: f"refused: {type(refusal).__name__}"}


def of_configs() -> Iterator[dict[str, str]]:
    """Each shipped config on its own networks, and the config that it becomes."""
    from test_configs import EXPERIMENTS, words

    from lit_gans.cli import main

    for name in EXPERIMENTS:
        with tempfile.TemporaryDirectory() as folder, chdir(folder):
            main(words(name))
            (path,) = Path("runs").rglob("last.ckpt")
            checkpoint = torch.load(path, weights_only=True)
            kept = {key: checkpoint[key] for key in ("state_dict", "optimizer_states", "hyper_parameters")}
            found = {f"{name}{where}": digest(value) for where, value in leaves(kept)}
            text = (path.parents[1] / "config.yaml").read_text("utf-8").replace(str(ROOT), "ROOT")
            yield found | {f"{name}, line {number}": line for number, line in enumerate(text.splitlines())}


def of_faults() -> Iterator[dict[str, str]]:
    """What the guard writes of faults, times left out."""
    from faults import Fault, events
    from toys import build, loader, trainer

    from lit_gans import CollapseDetector, ExplosionDetector, GradientNormMonitor

    faults: dict[str, tuple[Any, ...]] = {
        "nan": (float("nan"), 5, 9),
        "infinity": (float("inf"), 6),
        "spike": (1e6, 30),
        "weight": ("weight", 7),
        "batch": ("batch", 8),
    }
    for name, (what, *steps) in faults.items():
        for action in ("rollback", "skip", "warn"):
            key = f"fault {name}, {action}"
            with tempfile.TemporaryDirectory() as folder:
                guard = [GradientNormMonitor(), ExplosionDetector(action=action), CollapseDetector()]
                run = trainer(folder, max_steps=40, callbacks=[Fault(what, *steps), *guard])
                model = build("GAN", seed=1)
                try:
                    run.fit(model, loader(n=400, labels=False))
                except Exception as error:
                    yield {key: f"{type(error).__name__}: {digest(str(error))}"}
                found = {f"{key}{path}": digest(value) for path, value in leaves(model.state_dict())}
                if list(Path(folder).rglob("health.jsonl")):
                    for number, event in enumerate(events(Path(folder))):
                        kept = {k: v for k, v in event.items() if "time" not in k and k != "seconds"}
                        found[f"{key}, event {number}"] = digest(json.dumps(kept, sort_keys=True))
                yield found


def record(path: Path) -> None:
    """Write all digests to a file."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    found: dict[str, str] = {}
    for part in (of_models, of_faults, of_configs):
        for some in part():
            found |= some
        print(f"{part.__name__}: {len(found)} digests so far", flush=True)
    path.write_text(json.dumps(found, indent=0), encoding="utf-8")


def compare(before: Path, after: Path) -> int:
    """Print what differs; the number of keys that do."""
    one, other = (json.loads(path.read_text("utf-8")) for path in (before, after))
    differ = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
    for key in differ:
        print(f"{key}: {one.get(key, 'absent')} → {other.get(key, 'absent')}")
    print(f"{len(one)} before, {len(other)} after, {len(differ)} differ")
    return len(differ)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("record").add_argument("path", type=Path)
    both = commands.add_parser("compare")
    both.add_argument("before", type=Path)
    both.add_argument("after", type=Path)
    given = parser.parse_args()
    if given.command == "record":
        record(given.path)
    else:
        sys.exit(compare(given.before, given.after) > 0)

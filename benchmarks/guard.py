"""Does the guard find what goes wrong, does training recover, and does it leave healthy runs alone?

    OMP_NUM_THREADS=1 python -m benchmarks.guard faults [--jobs 2] [--seeds 0 1 2 3 4] [--models gan dcgan wgan_gp]
    OMP_NUM_THREADS=1 python -m benchmarks.guard healthy [--jobs 2]
    OMP_NUM_THREADS=1 python -m benchmarks.guard vanishing
    python -m benchmarks.guard tables

All on scikit-learn's digits, with the settings of configs/callbacks/guard.yaml, read from that file.

``faults`` injects one fault into each run, at a random step: see ``FAULTS``. Each run is made with the guard and
without, and once untouched, with the same seed. Told are the steps from the fault to the first event, whether weights
held NaN or infinity after any step, and the Fréchet distance (``digits``) of 5,000 samples: the mean of the last four
validations (twelve for GAN), 250 steps apart, since it scatters. A run without the guard whose weights are no longer
finite is not run to its end: its distance counts as infinite.

``healthy`` trains five configurations with four seeds for 8,000 steps each and counts what the guard says.

``vanishing`` is the experiment of Arjovsky and Bottou 2017 (section 2.2, figure 2): the generator's gradients under a
discriminator that is trained on and on, for the minimax loss log(1 - D(G(z))) and the non-saturating -log D(G(z)).

Each command writes benchmarks/results/guard_<command>.json, as it goes along, and goes on where it was stopped;
``tables`` makes the tables and the pictures of all.
"""

import argparse
import copy
import json
import logging
import math
import multiprocessing
import sys
import tempfile
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
import yaml

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))  # its faults
RESULTS = Path(__file__).parent / "results"
CONFIG = Path(__file__).parents[1] / "configs" / "callbacks" / "guard.yaml"
STEPS = {"gan": 6000, "dcgan": 3000, "wgan_gp": 3000}  # when distances fall but slowly
MEASUREMENTS = {"gan": 12}  # of the distance, 250 steps apart; 4 where not named
FIRST, LAST = 600, 1600  # where faults are injected
HEALTHY_STEPS = 8000
NUMERIC = ("nan_gradient", "inf_gradient", "gradient_1e3", "gradient_1e6", "nan_weight", "nan_batch")
SLOW = ("rate_100", "rate_rising", "d_frozen", "d_rate_50", "g_zeroed")
ONCE = {  # what they are in tests/support/faults.py
    "nan_gradient": math.nan,
    "inf_gradient": math.inf,
    "gradient_1e3": 1e3,
    "gradient_1e6": 1e6,
    "nan_weight": "weight",
    "nan_batch": "batch",
}
FAULTS = {
    "nan_gradient": "one element of a gradient becomes NaN, once",
    "inf_gradient": "one element of a gradient becomes infinite, once",
    "gradient_1e3": "all gradients of a player times 1e3, once",
    "gradient_1e6": "all gradients of a player times 1e6, once",
    "nan_weight": "one weight of a player becomes NaN",
    "nan_batch": "a batch of NaN",
    "rate_100": "a player's learning rate times 100 for 50 steps",
    "rate_rising": "a player's learning rate grows by 5 % a step, without end",
    "d_frozen": "the discriminator's learning rate becomes 0",
    "d_rate_50": "the discriminator's learning rate times 50, from now on",
    "g_zeroed": "the generator's last layer is set to zero, with its moments",
}


def quiet():
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)


def build(name, **kwargs):
    """Five games on 8×8 digits, which all end well when nothing is done to them."""
    from lit_gans import models
    from lit_gans.networks import DCGANDiscriminator, DCGANGenerator, MLPDiscriminator, MLPGenerator
    from lit_gans.regularizers import R1

    common = {"latent_dim": 32, "ema_decay": 0.999, **kwargs}
    if name == "gan":  # configs/quickstart.yaml
        size = {"image_size": 8, "widths": (128, 128), "num_classes": 10, "embed_dim": 10}
        rates = {"g_lr": 5e-4, "d_lr": 5e-4, "num_classes": 10, "uniform_labels": True}
        networks = MLPGenerator(latent_dim=32, norm="batch", **size), MLPDiscriminator(**size)
        return models.GAN(*networks, **rates, regularizers=[R1(1.0, every=4)], **common)
    norm = "batch" if name == "dcgan" else None
    generator = DCGANGenerator(image_size=8, channels=1, latent_dim=32, width=32)
    discriminator = DCGANDiscriminator(image_size=8, channels=1, width=32, norm=norm)
    if name == "dcgan":
        return models.DCGAN(generator, discriminator, g_lr=5e-4, d_lr=5e-4, regularizers=[R1(1.0, every=4)], **common)
    if name == "wgan_gp":  # faster than in the paper, since the runs are short
        return models.WGANGP(generator, discriminator, n_critic=1, g_lr=5e-4, d_lr=5e-4, **common)
    if name == "wgan":
        return models.WGAN(generator, discriminator, g_lr=5e-4, d_lr=5e-4, **common)
    return models.SNGAN(generator, discriminator, n_critic=1, **common)


def guard():
    """The callbacks of configs/callbacks/guard.yaml."""
    import lit_gans

    entries = yaml.safe_load(CONFIG.read_text("utf-8"))["trainer"]["callbacks+"]
    return [getattr(lit_gans, entry["class_path"])(**entry.get("init_args", {})) for entry in entries]


def make_fault(fault, step, seed):
    """A callback that does it, before the guard looks; what is done once is done as in the tests."""
    from faults import Fault

    class Inject(Fault):
        spoiled = False  # whether weights were ever not finite after a step

        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            now = trainer.fit_loop.epoch_loop._batches_that_stepped
            if now > step and not all(torch.isfinite(p).all() for p in module.parameters()):
                self.spoiled = True
                if not any(hasattr(c, "guard") for c in trainer.callbacks):
                    trainer.should_stop = True
            super().on_train_batch_start(trainer, module, batch, batch_idx)
            optimizer = trainer.optimizers[("discriminator", "generator").index(self.player)]
            if fault == "g_zeroed" and now == step:
                layers = (torch.nn.Linear, torch.nn.ConvTranspose2d)
                last = [m for m in module.generator.modules() if isinstance(m, layers)][-1]
                for parameter in last.parameters():
                    parameter.data.zero_()
                    for moment in optimizer.state[parameter].values():
                        moment.zero_()
            rate = optimizer.param_groups[0]["lr"]
            if now == step:
                self.rate = rate
            if fault == "rate_100" and now in (step, step + 50):
                optimizer.param_groups[0]["lr"] = self.rate * (100 if now == step else 1)
            if fault == "rate_rising" and now >= step and not self.answered(trainer):
                optimizer.param_groups[0]["lr"] = rate * 1.05
            if fault == "d_frozen" and now == step:
                optimizer.param_groups[0]["lr"] = 0.0
            if fault == "d_rate_50" and now == step:
                optimizer.param_groups[0]["lr"] = rate * 50

        def answered(self, trainer):
            """A rise that goes on for ever would only prove that the guard stops: it ends when it is undone."""
            return any(type(c).__name__ == "Guard" and c.rollbacks for c in trainer.callbacks)

    drawn = ("discriminator", "generator")[seed % 2]
    player = "generator" if fault == "g_zeroed" else "discriminator" if fault.startswith("d_") else drawn
    return Inject(ONCE.get(fault, fault), step, player=player)


def train(task):
    """One run; returns what is known of it afterwards."""
    quiet()
    import lightning

    from lit_gans import GenerativeMetrics, ImageDataModule, TrainingDiverged

    model, fault, seed, guarded, steps = task
    number = int(torch.randint(FIRST, LAST, (), generator=torch.Generator().manual_seed(hash_of(model, fault, seed))))
    lightning.seed_everything(seed, verbose=False)
    callbacks = [] if fault is None else [make_fault(fault, number, hash_of(model, fault, seed))]
    callbacks += guard() if guarded else []

    count = MEASUREMENTS.get(model, 4)

    class Late(GenerativeMetrics):
        """Measures at the end only."""

        def on_validation_epoch_end(self, trainer, pl_module):
            if trainer.global_step > steps - 250 * count:
                super().on_validation_epoch_end(trainer, pl_module)

    metrics = Late(["fd"], extractor="digits", every_n_steps=250)
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_steps=steps,
            logger=False,
            default_root_dir=folder,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            callbacks=[*callbacks, metrics],
        )
        stopped = None
        try:
            trainer.fit(build(model), ImageDataModule("digits"))
        except TrainingDiverged as error:
            stopped = str(error)
        health = Path(folder) / "health.jsonl"
        events = [json.loads(line) for line in health.read_text("utf-8").splitlines()] if guarded else []
    injected = callbacks[0] if fault is not None else None
    last = [values["fd_digits"] for _, values in metrics.history[-count:]]
    distance = sum(last) / count if trainer.global_step == steps else math.nan
    return {
        "model": model,
        "fault": fault,
        "seed": seed,
        "guarded": guarded,
        "step": number if fault else None,
        "steps": trainer.global_step,
        "player": None if fault is None else injected.player,
        "spoiled": bool(fault) and injected.spoiled,
        "stopped": stopped,
        "fd": distance if math.isfinite(distance) else None,
        "events": [{k: e[k] for k in ("step", "kind", "player", "value", "usual", "action")} for e in events],
    }


def hash_of(*words):
    from lit_gans.functional import mix_seed

    return mix_seed(*(ord(letter) for letter in "|".join(map(str, words))))


def run(name, tasks, jobs):
    """Run what is not yet in the file, and add it as it comes."""
    path = RESULTS / f"guard_{name}.json"
    rows = json.loads(path.read_text("utf-8")) if path.exists() else []
    known = {(row["model"], row["fault"], row["seed"], row["guarded"]) for row in rows}
    tasks = [task for task in tasks if task[:4] not in known]
    print(f"{len(known)} runs are known, {len(tasks)} to go", flush=True)
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for row in pool.imap_unordered(train, tasks):
            rows.append(row)
            path.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n", "utf-8")
            first = next((e for e in row["events"] if row["step"] is None or e["step"] >= row["step"]), None)
            told = f"{first['kind']}/{first['action']} at {first['step']}" if first else "no event"
            distance = "" if row["fd"] is None else f"{row['fd']:.3f}"
            print(
                f"{row['model']:8} {row['fault'] or 'untouched':13} seed {row['seed']} guard {row['guarded']!s:5} "
                f"fault {row['step']} ({row['player']}): {told}, {len(row['events'])} events, fd {distance} "
                f"{'SPOILED ' if row['spoiled'] else ''}{'STOPPED' if row['stopped'] else ''}",
                flush=True,
            )


def vanishing():
    """Arjovsky and Bottou's experiment: train D alone, and measure what reaches G under both losses."""
    quiet()
    from lit_gans import ImageDataModule

    rows = []
    for seed in range(3):
        torch.manual_seed(seed)
        model = build("dcgan", seed=seed)
        generator, data = model.generator, ImageDataModule("digits", batch_size=64)
        data.prepare_data()
        data.setup("fit")
        batches = [batch[0] for batch in data.train_dataloader()]
        critic = copy.deepcopy(model.discriminator)
        optimizer = torch.optim.Adam(critic.parameters(), lr=2e-4, betas=(0.5, 0.999))
        for step in range(5001):
            if step in (0, 1, 3, 10, 30, 100, 300, 1000, 2000, 5000):
                norms = {"minimax": [], "non-saturating": []}
                for _ in range(20):
                    logits = critic(generator(torch.randn(64, 32)))
                    for name, loss in {
                        "minimax": -F.softplus(logits).mean(),  # log(1 - D)
                        "non-saturating": F.softplus(-logits).mean(),  # -log D
                    }.items():
                        gradients = torch.autograd.grad(loss, list(generator.parameters()), retain_graph=True)
                        norms[name].append(torch.stack(torch._foreach_norm(gradients)).norm().item())
                rows.append({"seed": seed, "step": step, **{k: sorted(v)[len(v) // 2] for k, v in norms.items()}})
                print(rows[-1], flush=True)
            real = batches[step % len(batches)]
            with torch.no_grad():
                fake = generator(torch.randn(len(real), 32))
            optimizer.zero_grad()
            (F.softplus(-critic(real)).mean() + F.softplus(critic(fake)).mean()).backward()
            optimizer.step()
    (RESULTS / "guard_vanishing.json").write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n", "utf-8")


NAMES = {"gan": "GAN", "dcgan": "DCGAN with R1", "wgan_gp": "WGAN-GP", "sngan": "SNGAN", "wgan": "WGAN"}


def first_event(row):
    """The first answer at or after the fault."""
    return next((event for event in row["events"] if event["step"] >= row["step"]), None)


def delay(row):
    event = first_event(row)
    return math.inf if event is None else event["step"] - row["step"]


def median_distance(rows):
    """Median of the distances, infinite where a run did not come to a good end."""
    values = sorted(math.inf if row["fd"] is None else row["fd"] for row in rows)
    return values[len(values) // 2] if values else math.nan


def table_of_faults(rows):
    untouched = {(row["model"], row["seed"]): row for row in rows if row["fault"] is None}
    runs = [row for row in rows if row["fault"] is not None]
    lines = [
        "| fault | injected | found | in time | after (median, most) | first answer | NaN in weights | "
        + " | ".join(f"{NAMES[m]}: with, without" for m in STEPS)
        + " |",
        "|---|---|---|---|---|---|---|" + "---|" * len(STEPS),
    ]
    for fault in FAULTS:
        guarded = [row for row in runs if row["fault"] == fault and row["guarded"]]
        if not guarded:
            continue
        delays = sorted(map(delay, guarded))
        limit = 0 if fault in NUMERIC else 200
        found = [first_event(row) for row in guarded if first_event(row)]
        answers = sorted({f"{event['kind']} → {event['action']}" for event in found})
        ratios = []
        for model in STEPS:
            cells = []
            for with_guard in (True, False):
                mine = [r for r in runs if (r["fault"], r["model"], r["guarded"]) == (fault, model, with_guard)]
                seeds = {row["seed"] for row in mine}
                base = median_distance([row for (m, s), row in untouched.items() if m == model and s in seeds])
                ratio = median_distance(mine) / base if mine else math.nan
                cells.append("–" if math.isnan(ratio) else "∞" if math.isinf(ratio) else f"{ratio:.2f}")
            ratios.append(", ".join(cells))
        lines.append(
            f"| {FAULTS[fault]} | {len(guarded)} | {sum(d < math.inf for d in delays)} "
            f"| {sum(d <= limit for d in delays)} | {delays[len(delays) // 2]:g}, {delays[-1]:g} "
            f"| {', '.join(answers)} | {sum(r['spoiled'] for r in guarded)} | {' | '.join(ratios)} |"
        )
    for name, faults, limit in (("numeric", NUMERIC, 0), ("slow", SLOW, 200)):
        group = [row for row in runs if row["guarded"] and row["fault"] in faults]
        caught = sum(delay(row) <= limit for row in group)
        lines.append(f"\n{name} faults: {caught} of {len(group)} found within {limit} steps")
    stops = [row for row in runs if row["guarded"] and row["stopped"]]
    lines.append(f"\nstopped: {len(stops)} of {sum(row['guarded'] for row in runs)}")
    return "\n".join(lines)


def table_of_health(rows):
    lines = [
        "| game | runs | rollbacks and stops | warnings, in all | most in a run | distance |",
        "|---|---|---|---|---|---|",
    ]
    for model in dict.fromkeys(row["model"] for row in rows):
        mine = [row for row in rows if row["model"] == model]
        acts = sum(event["action"] in ("rollback", "stop") for row in mine for event in row["events"])
        warns = [sum(event["action"] not in ("rollback", "stop") for event in row["events"]) for row in mine]
        distance = median_distance(mine)
        lines.append(f"| {NAMES[model]} | {len(mine)} | {acts} | {sum(warns)} | {max(warns)} | {distance:.2f} |")
    return "\n".join(lines)


def plot_faults(rows, path):
    """Distances at the end over that of the untouched run, one dot a run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    base = {(row["model"], row["seed"]): row["fd"] for row in rows if row["fault"] is None}
    figure, axes = plt.subplots(1, len(STEPS), figsize=(13, 4.6), sharey=True, layout="constrained")
    worst = 300.0
    for axis, model in zip(axes, STEPS, strict=True):
        for guarded, colour, marker, shift in ((False, "#c44e52", "x", 0.15), (True, "#4c72b0", "o", -0.15)):
            chosen = [r for r in rows if r["model"] == model and r["fault"] and r["guarded"] == guarded]
            ratios = [worst if r["fd"] is None else min(worst, r["fd"] / base[model, r["seed"]]) for r in chosen]
            places = [list(FAULTS).index(r["fault"]) + shift for r in chosen]
            axis.scatter(
                ratios, places, s=16, c=colour, marker=marker, label=("without", "with")[guarded] + " the guard"
            )
        axis.axvspan(0.9, 1.1, color="0.88", zorder=0)
        axis.axvline(1, color="0.5", lw=0.8)
        axis.set_xscale("log")
        axis.set_yticks(range(len(FAULTS)), [name.replace("_", " ") for name in FAULTS])
        axis.set_title(NAMES[model])
        axis.set_xlim(0.7, worst * 1.3)
    axes[0].invert_yaxis()
    axes[0].legend(loc="upper right")
    figure.supxlabel("distance over that of the untouched run (right edge: not finite)")
    figure.savefig(path, dpi=110)


def plot_vanishing(rows, path):
    """Gradient norms that reach the generator, over the steps of the discriminator alone."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(6.5, 4), layout="constrained")
    for name, colour in (("minimax", "#c44e52"), ("non-saturating", "#4c72b0")):
        for seed in sorted({row["seed"] for row in rows}):
            mine = [row for row in rows if row["seed"] == seed]
            label = name if seed == 0 else None
            axis.plot(
                [max(row["step"], 0.7) for row in mine], [row[name] for row in mine], "o-", c=colour, ms=3, label=label
            )
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="updates of the discriminator alone",
        ylabel="norm of the generator's gradient",
    )
    axis.legend()
    figure.savefig(path, dpi=110)


def tables():
    for name, table in (("faults", table_of_faults), ("healthy", table_of_health)):
        path = RESULTS / f"guard_{name}.json"
        if path.exists():
            print(f"\n{name}\n\n{table(json.loads(path.read_text('utf-8')))}")
    for name, plot in (("faults", plot_faults), ("vanishing", plot_vanishing)):
        path = RESULTS / f"guard_{name}.json"
        if path.exists():
            plot(json.loads(path.read_text("utf-8")), path.with_suffix(".png"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["faults", "healthy", "vanishing", "tables"])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--models", nargs="+", default=["gan", "dcgan", "wgan_gp"])
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--guard", type=int, nargs="+", choices=[0, 1], default=[1, 0], help="with, without")
    options = parser.parse_args()
    if options.command == "faults":
        games = [(model, seed, STEPS[model]) for seed in options.seeds for model in options.models]
        tasks = [(model, None, seed, False, steps) for model, seed, steps in games]
        for guarded in (True, False):
            if guarded in map(bool, options.guard):
                tasks += [(m, fault, seed, guarded, steps) for m, seed, steps in games for fault in options.faults]
        run("faults", tasks, options.jobs)
    elif options.command == "healthy":
        models = ("gan", "dcgan", "wgan_gp", "sngan", "wgan")
        run("healthy", [(m, None, s, True, HEALTHY_STEPS) for s in range(4) for m in models], options.jobs)
    elif options.command == "vanishing":
        vanishing()
    else:
        tables()


if __name__ == "__main__":
    main()

"""Every shipped config says how to run it, is understood, and trains a model that can be sampled from."""

import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import lit_gans.callbacks
import lit_gans.data
import lit_gans.guard
import lit_gans.models
import lit_gans.networks
import lit_gans.regularizers
from lit_gans.cli import main
from lit_gans.data.datamodule import _FACTS
from lit_gans.data.points import is_plane

ROOT = Path(__file__).parents[1]
CONFIGS = {path.relative_to(ROOT / "configs").as_posix(): path for path in sorted((ROOT / "configs").rglob("*.yaml"))}
CONTENT = {name: yaml.safe_load(path.read_text("utf-8")) for name, path in CONFIGS.items()}
EXPERIMENTS = [name for name, content in CONTENT.items() if "class_path" not in content.get("data", {"class_path": 0})]
TRANSLATIONS = [name for name, content in CONTENT.items() if "class_path" in content.get("data", ())]
OVERLAYS = [name for name in CONFIGS if name not in (*EXPERIMENTS, *TRANSLATIONS)]
ROOMS = (lit_gans.models, lit_gans.networks, lit_gans.callbacks, lit_gans.guard, lit_gans.data, lit_gans.regularizers)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_every_model_has_a_config_on_its_papers_data():
    assert {name.partition("/")[0] for name in EXPERIMENTS} >= {"cgan", "dcgan", "gan", "sngan", "wgan", "wgan_gp"}
    assert {CONTENT[name]["data"]["dataset"] for name in EXPERIMENTS} == {
        *("digits", "mnist", "cifar10", "celeba"),
        *("ring", "grid"),
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_the_header_says_what_it_is_and_how_to_run_it(name):
    header = re.match(r"(#.*\n)+", CONFIGS[name].read_text("utf-8"))[0].splitlines()
    assert len(header) >= 2
    (command,) = (line for line in header if "python -m lit_gans" in line)
    paths = re.findall(r"--config (\S+)", command)
    assert f"configs/{name}" in paths
    assert all((ROOT / path).is_file() for path in paths)


def nodes(value):
    if isinstance(value, dict):
        if "class_path" in value:
            yield value["class_path"], value.get("init_args", {})
        for inner in value.values():
            yield from nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from nodes(inner)


@pytest.mark.parametrize("name", [*EXPERIMENTS, *TRANSLATIONS])
def test_it_holds_only_what_differs_from_the_defaults(name):
    data = CONTENT[name]["data"]
    given = [*nodes(data)] or [("ImageDataModule", data)]
    for class_path, arguments in [*given, *nodes(CONTENT[name]["model"]), *nodes(CONTENT[name]["trainer"])]:
        cls = next((getattr(room, class_path) for room in ROOMS if hasattr(room, class_path)), None)
        if cls is None:
            continue  # torch's own
        parameters = {
            key: parameter
            for base in reversed(cls.__mro__)
            if "__init__" in vars(base)
            for key, parameter in inspect.signature(base).parameters.items()
        }
        for key, value in arguments.items():
            default = parameters[key].default
            default = list(default) if isinstance(default, tuple) else default
            named = class_path == "ImageDataModule" and key == "dataset"
            assert named or default != value, f"{class_path}.{key} is {value} anyway"


PUBLISHED = {  # numbers of papers and releases that are no defaults of ours
    "dcgan/celeba.yaml": {"data.batch_size": 128},
    "projection_gan/cifar10.yaml": {"model.init_args.g_batch": 2},
    "reacgan/cifar10.yaml": {"model.init_args.discriminator.init_args.width": 48},
    "sngan/cifar10.yaml": {"model.init_args.g_batch": 2},
    "cut/fastcut_horse2zebra.yaml": {"model.init_args.nce_weight": 10.0, "model.init_args.identity": False},
    "cyclegan/horse2zebra.yaml": {"data.init_args.load_size": 286, "data.init_args.image_size": 256},
    "esrgan/df2k.yaml": {"trainer.max_steps": 400000, "data.init_args.image_size": 128},
    "esrgan/real.yaml": {"model.init_args.adversarial_weight": 0.1, "model.init_args.ema_decay": 0.999},
    "pix2pix/maps.yaml": {"data.init_args.batch_size": 1, "trainer.max_epochs": 200},
    "srgan/div2k.yaml": {"model.init_args.g_scheduler.init_args.milestones": [100000]},
    "stylegan2/cifar10.yaml": {
        "model.init_args.augment.class_path": "ADA",
        "model.init_args.discriminator.init_args.group": 32,
        "model.init_args.generator.init_args.mapping_layers": 2,
        "model.init_args.d_lr": 2.5e-3,
    },
    "wgan_gp/cifar10.yaml": {"model.init_args.g_batch": 2},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_has_the_numbers_of_the_setting_it_names(name):
    for path, number in PUBLISHED[name].items():
        value = CONTENT[name]
        for key in path.split("."):
            value = value[key]
        assert value == number, path


def test_labels_are_mapped_by_eight_layers_in_stylegan2s_discriminator():
    assert "mapping_layers" not in CONTENT["stylegan2/cifar10.yaml"]["model"]["init_args"]["discriminator"]["init_args"]
    assert inspect.signature(lit_gans.networks.StyleGAN2Discriminator).parameters["mapping_layers"].default == 8


def test_icr_without_labels_has_their_numbers():
    consistency, diversity = CONTENT["regularizers/icr.yaml"]["model"]["init_args"]["regularizers+"]
    assert consistency["init_args"] == {"fake": 1.0, "latent": 0.5, "sigma": 0.03}  # λ = 10, so that λ_dis is 5
    assert diversity["init_args"] == {"sigma": 0.03}


def test_the_quickstart_has_the_guard():
    guard = CONTENT["callbacks/guard.yaml"]["trainer"]["callbacks+"]
    assert [entry["class_path"] for entry in guard] == [
        "GradientNormMonitor",
        "ExplosionDetector",
        "CollapseDetector",
    ]
    assert CONTENT["quickstart.yaml"]["trainer"]["callbacks"][-3:] == guard


def test_rates_are_held_and_fall_for_as_many_epochs_as_the_papers_say():
    lengths = {"pix2pix/maps.yaml": 1096, "pix2pix/facades.yaml": 400}
    for name in TRANSLATIONS:
        for player in "gd":
            schedule = CONTENT[name]["model"]["init_args"].get(f"{player}_scheduler", {})
            if schedule.get("class_path") != "HoldThenDecay":
                continue
            epochs = CONTENT[name]["trainer"]["max_epochs"]
            length = lengths.get(name, 100000 // 16 if name == "cut/single.yaml" else 1334)
            hold = 150 if "fastcut" in name else epochs // 2
            assert schedule["init_args"] == {"hold": hold * length, "decay": (epochs - hold) * length}, name


NARROW = {  # what is too large for a test; all else stays as shipped
    "BEGAN": {"width": 16},
    "BEGANAutoencoder": {"width": 16},
    "BigGAN": {"width": 4},
    "DCGAN": {"width": 16},
    "R3GAN": {"width": 32, "depth": 1},
    "ResNet": {"width": 8},
    "SAGAN": {"width": 4},
    "StyleGAN2": {"channel_max": 16},
}
TRANSLATORS = {  # of networks between pictures, too
    "ContextEncoderDiscriminator": {"base_channels": 4},
    "ContextEncoderGenerator": {"base_channels": 4, "bottleneck": 16},
    "GatedGenerator": {"base_channels": 8},
    "PatchDiscriminator": {"base_channels": 4},
    "ResNetTranslator": {"base_channels": 4},
    "RRDBNet": {"base_channels": 4, "growth": 4, "blocks": 1},
    "SNPatchDiscriminator": {"base_channels": 4},
    "SRDiscriminator": {"base_channels": 4},
    "SRResNet": {"base_channels": 4, "blocks": 2},
    "UNetDiscriminator": {"base_channels": 4},
    "UNetGenerator": {"base_channels": 4},
}


def lay_out(data):
    """Make what a config says of its folders: four pictures to train on, two to validate, larger than any window."""
    rng = np.random.default_rng(0)
    side = (data.get("load_size") or data["image_size"]) + 8
    size = (side, min(2, 1 + ("side_by_side" in data)) * side, 3)
    backgrounds = (
        data.get("task", {}).get("matte", {}).get("backgrounds") if isinstance(data.get("task"), dict) else None
    )
    for path in filter(
        None, [*(data.get(f"{key}root{end}") for key in ("", "val_") for end in ("", "_b")), backgrounds]
    ):
        single = Path(path).suffix == ".jpg"
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        for n in range(1 if single else 6):
            file = Path(path) if single else Path(path) / f"{n}.png"
            file.parent.mkdir(exist_ok=True)
            rows = rng.integers(0, 256, (5, 5, 4 if path == "data/cutouts" else 3), dtype=np.uint8)
            Image.fromarray(rows).resize((size[1], size[0])).save(file)


def picture_words(name):
    """The config on folders such as it wants, at narrow widths, two pictures a batch, for two updates."""
    content = CONTENT[name]
    data, model = content["data"]["init_args"], content["model"]["init_args"]
    options = {
        "data.batch_size": 2,
        "data.num_workers": 0,
        "trainer.max_epochs": -1,
        "trainer.max_steps": 2,
        "trainer.limit_val_batches": 0,
        "trainer.enable_progress_bar": "false",
        "trainer.callbacks": "SampleGrid",
        "trainer.callbacks.n": 4,
        "monitor": "null",
    }
    if "dataset" not in data:
        lay_out(data)
        options |= {"data.held_out": 2} if "held_out" in data else {}
    elif data["dataset"] == "cifar10":
        options |= {"data.dataset": "fake", "data.image_size": 32, "data.limit": 16}
    for network in ("generator", "discriminator"):
        narrow = TRANSLATORS[model[network]["class_path"]]
        options |= {f"model.{network}.init_args.{key}": value for key, value in narrow.items()}
    if name.startswith(("srgan/", "esrgan/")):  # no weights of VGG19
        seen = {"extractor": "digits", "layers": ["layers.7"], "weights": [1.0]}
        options |= {"model.perceptual": json.dumps({"class_path": "PerceptualLoss", "init_args": seen})}
    return ["fit", "--config", str(CONFIGS[name]), *(f"--{key}={value}" for key, value in options.items())]


def words(name):
    """The config on fake data of its shape, or a few of its points, four a batch, for one update of the generator."""
    if name in TRANSLATIONS:
        return picture_words(name)
    content = CONTENT[name]
    data, model = content["data"], content["model"]
    cls = getattr(lit_gans.models, model["class_path"])
    defaults = [inspect.signature(base).parameters.get("n_critic") for base in cls.__mro__]
    n_critic = model["init_args"].get("n_critic") or next(default.default for default in defaults if default)
    options = {
        "data.batch_size": 4,
        "data.limit": 16,
        "trainer.max_epochs": -1,
        "trainer.max_steps": max(2, n_critic),
        "trainer.limit_val_batches": 0,
        "trainer.enable_progress_bar": "false",
        "trainer.callbacks": "SampleGrid",
        "trainer.callbacks.n": 4,
        "monitor": "null",
    }
    if not is_plane(data["dataset"]):
        facts = _FACTS[data["dataset"]]
        options |= {
            "data.dataset": "fake",
            "data.image_size": data.get("image_size", facts.size),
            "data.channels": data.get("channels", facts.channels),
        }
    for network in ("generator", "discriminator"):
        narrow = NARROW.get(model["init_args"][network]["class_path"].replace(network.title(), ""), {})
        options |= {f"model.{network}.init_args.{key}": value for key, value in narrow.items()}
    return ["fit", "--config", str(CONFIGS[name]), *(f"--{key}={value}" for key, value in options.items())]


PICTURED = ("gan/ring.yaml", "cgan/mnist.yaml", "dcgan/celeba.yaml")  # points, grey images with labels, colour
FAMILIES = [  # one for each family of networks
    *("quickstart.yaml", "dcgan/mnist.yaml", "sngan/cifar10.yaml", "sagan/cifar10.yaml", "biggan/cifar10.yaml"),
    *("stylegan2/cifar10.yaml", "r3gan/cifar10.yaml", "ebgan/mnist.yaml", "began/celeba.yaml", "gan/ring.yaml"),
]
EACH_TIME = {*PICTURED, *FAMILIES}
SAMPLED = [(name, name in PICTURED) for name in EXPERIMENTS if name in EACH_TIME]
SAMPLED += [pytest.param(name, True, marks=pytest.mark.exhaustive) for name in EXPERIMENTS if name not in PICTURED]


@pytest.mark.parametrize(("name", "picture"), SAMPLED)
def test_it_trains_and_its_checkpoint_is_all_that_sampling_needs(name, picture):
    """By default one config of each family of networks; a picture, drawn from the same arrays, of one of each kind."""
    main(words(name))
    (checkpoint,) = Path("runs").rglob("last.ckpt")
    saved = torch.load(checkpoint, weights_only=True)
    assert all(torch.isfinite(v).all() for v in saved["state_dict"].values())
    assert all(state["state"] for state in saved["optimizer_states"])  # both players have been updated
    main(["sample", str(checkpoint), "-n", "3", "--seed", "1", "-o", "x.npz"])
    arrays, dataset = np.load("x.npz"), CONTENT[name]["data"]["dataset"]
    if is_plane(dataset):
        assert (arrays["points"].shape, arrays["points"].dtype) == ((3, 2), np.float32)
    else:
        facts = _FACTS[dataset]
        assert arrays["images"].shape == (3, facts.size, facts.size, facts.channels)
        assert arrays["images"].dtype == np.uint8
    conditional = "num_classes" in CONTENT[name]["model"]["init_args"] or name.startswith("infogan/")
    assert ("labels" in arrays or "codes" in arrays) == conditional
    if picture:
        main(["sample", str(checkpoint), "-n", "3", "--seed", "1", "-o", "x.png"])
        assert Path("x.png").is_file()


PICTURES = (  # one for each family of networks
    *("pix2pix/digits.yaml", "cyclegan/digits.yaml", "cut/digits.yaml", "srgan/digits.yaml", "esrgan/digits.yaml"),
    *("esrgan/real.yaml", "context_encoder/digits.yaml", "gated_inpainting/digits.yaml"),
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", [name if name in PICTURES else pytest.param(name, marks=pytest.mark.exhaustive) for name in TRANSLATIONS]
)
def test_it_trains_and_its_checkpoint_is_all_that_translating_needs(name):
    main(words(name))
    (checkpoint,) = Path("runs").rglob("last.ckpt")
    saved = torch.load(checkpoint, weights_only=True)
    assert all(torch.isfinite(v).all() for v in saved["state_dict"].values())
    alone = "content_only" in CONTENT[name]["model"]["init_args"]  # then the discriminator rests
    assert [bool(state["state"]) for state in saved["optimizer_states"]] == [not alone, True]
    model = lit_gans.models.load(checkpoint)
    assert type(model).__name__ == CONTENT[name]["model"]["class_path"]
    task = CONTENT[name]["data"]["init_args"].get("task")
    scale = 1 if "srgan" not in name else 2 if "/digits" in name else 4
    source = torch.rand(1, model.generator.in_channels, 16, 24) * 2 - 1
    if masked := isinstance(task, dict) and "mask" in task:
        source[:, -1:] = 0
        source[:, -1, 6:10, 8:12] = 1
    made = model.translate(source)
    assert made.shape == (1, model.generator.out_channels, 16 * scale, 24 * scale)
    assert made.isfinite().all()
    assert made.abs().max() <= 1
    if masked:
        known = (source[:, -1:] == 0).expand_as(made)
        assert torch.equal(made[known], source[:, :-1][known])


OPTIONS = {  # each of which goes with each config, or is refused in a sentence
    "bf16-mixed": ["--trainer.precision=bf16-mixed"],
    "channels_last": ["--model.channels_last=true"],
    "accumulate": ["--model.accumulate=2"],
    **{
        overlay: [f"--config={CONFIGS[overlay]}"]
        for overlay in (
            "augment/diffaugment.yaml",
            "augment/ada.yaml",
            "regularizers/r1.yaml",
            "regularizers/lecam.yaml",
        )
    },
}
BY_DEFAULT = [
    ("quickstart.yaml", "accumulate"),
    ("wgan_gp/mnist.yaml", "bf16-mixed"),
    ("gan/ring.yaml", "augment/diffaugment.yaml"),
    ("ebgan/mnist.yaml", "accumulate"),
]
CELLS = [
    pytest.param(name, option, marks=() if (name, option) in BY_DEFAULT else pytest.mark.exhaustive)
    for name in [*EXPERIMENTS, *(name for name in TRANSLATIONS if "/digits" in name)]
    for option in OPTIONS
]


def runs_or_is_refused(name, *options, capsys):
    """Train as above; either the weights are finite at the end, or one sentence says why not."""
    command, config, path, *rest = words(name)
    code = 0
    try:
        main([command, config, path, *options, *rest])
    except SystemExit as left:
        code = left.code
    assert code in (0, 2)
    if code:
        err = capsys.readouterr().err
        (message,) = (line for line in err.splitlines() if line.startswith("lit_gans: "))
        assert "Traceback" not in err
        assert 20 < len(message) < 500
        return False
    (checkpoint,) = Path("runs").rglob("last.ckpt")
    assert all(torch.isfinite(v).all() for v in torch.load(checkpoint, weights_only=True)["state_dict"].values())
    return True


@pytest.mark.parametrize(("name", "option"), CELLS)
def test_each_option_goes_with_each_config_or_is_refused(name, option, capsys):
    went = runs_or_is_refused(name, *OPTIONS[option], capsys=capsys)
    if (name, option) in BY_DEFAULT:
        assert went == (not name.startswith(("gan/ring", "ebgan")))


ADD_ONS = [name for name in OVERLAYS if name.startswith(("augment/", "regularizers/")) and name not in OPTIONS]


@pytest.mark.exhaustive
@pytest.mark.parametrize("overlay", ADD_ONS)
@pytest.mark.parametrize("name", FAMILIES)
def test_each_add_on_goes_with_each_family_of_networks_or_is_refused(name, overlay, capsys):
    runs_or_is_refused(name, f"--config={CONFIGS[overlay]}", capsys=capsys)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_of_networks_compiles(name, capsys, caplog):
    with caplog.at_level("INFO"):
        assert runs_or_is_refused(name, "--model.compile=true", capsys=capsys)


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlays_are_understood(name, capsys):
    quickstart = str(CONFIGS["quickstart.yaml"])
    with pytest.raises(SystemExit) as left:
        main(["fit", "--config", quickstart, "--config", str(CONFIGS[name]), "--print_config"])
    assert left.value.code in (0, None)
    printed = yaml.safe_load(capsys.readouterr().out)

    def holds(inner, outer):
        for key, value in inner.items():
            if isinstance(value, dict):
                holds(value, outer[key])
            elif isinstance(value, list) and value and isinstance(value[0], dict):
                found = outer[key.removesuffix("+")]
                for one, other in zip(value, found[-len(value) :] if key.endswith("+") else found, strict=True):
                    holds(one, other)
            else:
                assert outer[key] == value or str(outer[key]).endswith(f".{value}"), key

    holds(CONTENT[name], printed)
    assert printed["model"]["class_path"].endswith(CONTENT["quickstart.yaml"]["model"]["class_path"])


@pytest.mark.parametrize("overlay", ["trainer/bf16.yaml", "trainer/debug.yaml"])
def test_trainer_overlays_run_on_the_cpu(overlay):
    options = [word for word in words("gan/mnist.yaml") if "max_steps" not in word]
    steps = [] if "debug" in overlay else ["--trainer.max_steps", "2"]
    main([*options[:3], "--config", str(CONFIGS[overlay]), *options[3:], *steps])
    (checkpoint,) = Path("runs").rglob("last.ckpt")
    assert torch.load(checkpoint, weights_only=True)["global_step"] == (12 if "debug" in overlay else 2)


MEASURED = [name for name in EXPERIMENTS if CONTENT[name]["trainer"].get("callbacks")]
EVERY_TIME = ("quickstart.yaml", "gan/mnist.yaml", "acgan/mnist.yaml", "gan/ring.yaml")


@pytest.mark.parametrize(
    "name", [name if name in EVERY_TIME else pytest.param(name, marks=pytest.mark.exhaustive) for name in MEASURED]
)
def test_it_measures_what_it_monitors(name):
    """The shipped callbacks on a hundred samples, by the classifier of the data, or by the modes that are known."""
    dataset, every = CONTENT[name]["data"]["dataset"], "--trainer.callbacks.every_n_steps"
    points = is_plane(dataset)
    assert CONTENT[name]["monitor"] == ("val/reverse_kl" if points else f"val/fd_{dataset}")
    options = [word for word in words(name) if not re.match(r"--(trainer.(callbacks|limit_val)|monitor)", word)]
    metrics = "[modes]" if points else "[fd,classes]"
    callback = ["--trainer.callbacks", "GenerativeMetrics", "--trainer.callbacks.metrics", metrics, f"{every}=1"]
    extractor = [] if points else ["--trainer.callbacks.extractor", dataset]
    protocol = '{"class_path": "lit_gans.metrics.Protocol", "init_args": {"fakes": 100}}'
    main([*options, *callback, *extractor, "--trainer.callbacks.protocol", protocol])
    (checkpoint,) = Path("runs").rglob("best.ckpt")
    measured = torch.load(checkpoint, weights_only=True)["lit_gans_metrics"]
    spread = {"high_quality", "reverse_kl"} if points else {f"fd_{dataset}", "entropy", "confidence"}
    assert measured["values"].keys() == {"modes", *spread}


JUDGED = [name for name in TRANSLATIONS if CONTENT[name]["trainer"].get("callbacks")]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [name if name == "pix2pix/digits.yaml" else pytest.param(name, marks=pytest.mark.exhaustive) for name in JUDGED],
)
def test_it_measures_pictures_and_keeps_the_best(name):
    content = CONTENT[name]
    (callback,) = (dict(entry["init_args"]) for entry in content["trainer"]["callbacks"])
    options = [word for word in words(name) if not re.match(r"--(trainer.(callbacks|limit_val)|monitor)", word)]
    main([*options, "--trainer.callbacks.every_n_steps=1", "--data.limit=16"])
    (folder,) = {path.parent for path in Path("runs").rglob("last.ckpt")}
    measured = torch.load(folder / "last.ckpt", weights_only=True)["lit_gans_metrics"]["values"]
    found = {key.split("_")[0] for key in measured}
    assert found == set(callback.get("metrics", ["fd"]))
    assert (folder / "best.ckpt").is_file() == ("monitor" in content)
    if "monitor" in content:
        assert content["monitor"].removeprefix("val/") in measured
        assert (content.get("monitor_mode") == "max") == (content["monitor"] == "val/psnr")

"""A stranger's checkpoint runs nothing: it is read in every way there is, and the mark it would leave looked for."""

import copy
import re
import sys
from pathlib import Path

import pytest
import torch
from refusals import refused
from toys import trainer

from lit_gans import CGAN, GAN, ImageDataModule
from lit_gans.cli import main
from lit_gans.networks import MLPDiscriminator, MLPGenerator
from lit_gans.runs import LastCheckpoint
from lit_gans.runs.trust import UntrustedError, check_names, class_named, make, resolve

GOOD = Path(__file__).parent / "data" / "format_1.ckpt"
MARK = "mark-of-the-stranger"
TOUCH = {"class_path": "unittest.mock.MagicMock", "init_args": {"return_value": f"touch {MARK}"}}
COMPOSE = {"class_path": "torchvision.transforms.v2.Compose", "init_args": {"transforms": [TOUCH, "os.system"]}}
RELU = {"class_path": "torch.nn.TransformerEncoderLayer", "init_args": {"d_model": 8, "nhead": 1}}
ADAM = {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-3}}
LAMBDA = {"class_path": "torch.optim.lr_scheduler.LambdaLR", "init_args": {"lr_lambda": "os.system"}}
MINE = f"import pathlib, torch\npathlib.Path({MARK!r}).touch()\nfrom lit_gans import GAN\nclass Mine(GAN): pass\n"


def network(**init_args):
    return {"class_path": "lit_gans.networks.MLPGenerator", "init_args": init_args}


# where in a checkpoint → what stands there, what the refusal names
ATTEMPTS = {
    "the reported file": ("generator", COMPOSE, "torchvision.transforms.v2.Compose"),
    "discriminator": ("discriminator", COMPOSE, "torchvision.transforms.v2.Compose"),
    "a network within a network": ("generator", network(norm=COMPOSE), "torchvision.transforms.v2.Compose"),
    "deep in lists and dicts": ("generator", network(widths=[{"x": [[TOUCH]]}]), "unittest.mock.MagicMock"),
    "a module of this folder": ("generator", {"class_path": "stranger.Mine"}, "stranger.Mine"),
    "a class of Python's": (
        "generator",
        {"class_path": "subprocess.Popen", "init_args": {"args": "ls"}},
        "Popen",
    ),
    "a function": ("generator", {"class_path": "os.system"}, "os.system"),
    "a function of torch": ("generator", {"class_path": "torch.hub.load"}, "torch.hub.load"),
    "a function of torch.nn": ("augment", {"class_path": "torch.nn.functional.relu"}, "torch.nn.functional.relu"),
    "through a module of ours": ("generator", {"class_path": "lit_gans.models.gan.torch.hub.load"}, "torch.hub.load"),
    "through a module of torch": ("generator", {"class_path": "torch.nn.modules.module.os.system"}, "os.system"),
    "what a module of ours imported": ("augment", {"class_path": "lit_gans.networks.mlp.Sequence"}, "mlp.Sequence"),
    "our command line": ("generator", {"class_path": "lit_gans.cli.main"}, "lit_gans.cli.main"),
    "our command line, imported": ("generator", {"class_path": "lit_gans.__main__.main"}, "lit_gans.__main__"),
    "a path": ("generator", {"class_path": "lit_gans.__path__.append"}, "lit_gans.__path__.append"),
    "globals": ("generator", {"class_path": "lit_gans.models.GAN.__init__.__globals__"}, "__globals__"),
    "ours, but no network": ("augment", {"class_path": "lit_gans.data.ImageDataModule"}, "ImageDataModule"),
    "ours, but it imports by name": (
        "augment",
        {"class_path": "lit_gans.metrics.extractors.ModuleExtractor", "init_args": {"name": "os.system"}},
        "lit_gans.metrics",
    ),
    "optimizer": ("g_optimizer", {"class_path": "os.system", "init_args": {"command": f"touch {MARK}"}}, "os.system"),
    "optimizer as text": ("g_optimizer", "os.system", "'os.system'"),
    "optimizer, its argument": ("d_optimizer", ADAM | {"init_args": {"params": TOUCH}}, "unittest.mock.MagicMock"),
    "scheduler": ("g_scheduler", {"class_path": "functools.partial"}, "functools.partial"),
    "scheduler, its function as text": ("d_scheduler", LAMBDA, "'os.system'"),
    "clip": ("g_clip", {"class_path": "os.system"}, "os.system"),
    "augmentation": ("augment", COMPOSE, "torchvision.transforms.v2.Compose"),
    "augmentation as text": ("augment", "os.system", "'os.system'"),
    "augmentation as YAML": ("augment", "{class_path: os.system}", "class_path: os.system"),
    "activation as text": ("augment", RELU | {"init_args": {"activation": "os.system"}}, "'os.system'"),
    "regularizer": ("regularizers", [TOUCH], "unittest.mock.MagicMock"),
    "regularizer, its argument": (
        "regularizers",
        [{"class_path": "lit_gans.regularizers.R1", "init_args": {"weight": COMPOSE}}],
        "torchvision.transforms.v2.Compose",
    ),
    "regularizer as text": ("regularizers", ["os.system"], "'os.system'"),
    "arguments beside arguments": ("generator", network() | {"dict_kwargs": {"x": TOUCH}}, "unittest.mock.MagicMock"),
    "no text": ("generator", {"class_path": ["os", "system"]}, "os"),
    "a name of control codes": ("generator", {"class_path": "os\n\x1b[2J.system"}, "os\\n\\x1b[2J.system"),
}


def stranger(path, **changes):
    """A good checkpoint with other arguments."""
    checkpoint = torch.load(GOOD, weights_only=True)
    checkpoint["hyper_parameters"] |= changes
    torch.save(checkpoint, path)
    return checkpoint


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """A folder that holds a module of the stranger's, and is on the path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("stranger.py").write_text(MINE)
    yield
    sys.modules.pop("stranger", None)


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_what_a_checkpoint_names_is_refused_and_neither_imported_nor_called(attempt, capsys):
    where, value, named = ATTEMPTS[attempt]
    stranger("x.ckpt", **{where: value})
    before = set(sys.modules)
    with pytest.raises(UntrustedError) as error:
        GAN.load_from_checkpoint("x.ckpt")
    assert named in str(error.value)
    assert "\n" not in str(error.value)
    for words in (["sample", "x.ckpt", "-o", "x.png"], ["evaluate", "x.ckpt"], ["validate", "--ckpt_path", "x.ckpt"]):
        message = refused(capsys, *words)
        assert named in message
        assert "x.ckpt is refused" in message
    assert not Path(MARK).exists()
    assert "stranger" not in sys.modules
    assert {"unittest.mock", "subprocess", "torchvision.transforms.v2"} & set(sys.modules) <= before


def test_how_lightning_would_build_it_is_not_asked(tmp_path):
    stranger("x.ckpt", _instantiator="os.system", _class_path="stranger.Mine")
    assert type(GAN.load_from_checkpoint("x.ckpt")) is CGAN
    assert "_instantiator" not in {k for k, v in GAN.load_from_checkpoint("x.ckpt").hparams.items() if v == "os.system"}
    assert "stranger" not in sys.modules


@pytest.mark.parametrize("key", ["hparams", "module_arguments", "hparams_name", "hparams_type"])
def test_nor_do_keys_that_lightning_knows_of_old_steer_anything(key):
    checkpoint = stranger("x.ckpt")
    checkpoint[key] = {"generator": COMPOSE} if key[-1] == "s" else "generator"
    torch.save(checkpoint, "x.ckpt")
    assert type(GAN.load_from_checkpoint("x.ckpt")) is CGAN


def test_arguments_of_a_file_beside_it_are_believed_no_more():
    stranger("x.ckpt")
    Path("hparams.yaml").write_text("generator: {class_path: stranger.Mine}\n")
    with pytest.raises(UntrustedError, match=r"stranger\.Mine"):
        GAN.load_from_checkpoint("x.ckpt", hparams_file="hparams.yaml")
    Path("hparams.yaml").write_text("generator: !!python/name:os.system\n")
    with pytest.raises(Exception, match="could not determine a constructor"):
        GAN.load_from_checkpoint("x.ckpt", hparams_file="hparams.yaml")
    assert "stranger" not in sys.modules


def test_the_class_of_the_model_itself():
    checkpoint = stranger("x.ckpt")
    checkpoint["lit_gans"]["class_path"] = "stranger.Mine"
    torch.save(checkpoint, "x.ckpt")
    with pytest.raises(UntrustedError, match=r"'stranger\.Mine'.*trust=\['stranger'\].*--import stranger"):
        GAN.load_from_checkpoint("x.ckpt")
    assert not Path(MARK).exists()
    assert type(GAN.load_from_checkpoint("x.ckpt", trust=["stranger"], num_classes=None, **plain())).__name__ == "Mine"
    assert Path(MARK).exists()  # the caller's own word
    with pytest.raises(UntrustedError, match=r"stranger\.Mine"):
        GAN.load_from_checkpoint("x.ckpt")  # although it is imported now
    mine = sys.modules["stranger"].Mine
    assert type(mine.load_from_checkpoint("x.ckpt", num_classes=None, **plain())) is mine


def plain():
    """Networks of the sizes of the good checkpoint."""
    small = {"image_size": 8, "widths": [16], "num_classes": 10, "embed_dim": 4}
    return {"generator": MLPGenerator(latent_dim=8, norm="batch", **small), "discriminator": MLPDiscriminator(**small)}


def test_data_and_callbacks_of_a_checkpoint(capsys):
    checkpoint = stranger("x.ckpt")
    for value, told in (("stranger:make", "stranger:make"), (COMPOSE, "")):
        changed = copy.deepcopy(checkpoint)
        changed["datamodule_hyper_parameters"]["dataset"] = value
        torch.save(changed, "y.ckpt")
        if told:
            assert told in refused(capsys, "evaluate", "y.ckpt")
    changed = copy.deepcopy(checkpoint)
    changed["callbacks"] = {"SampleGrid": COMPOSE, "stranger.Mine": {"class_path": "stranger.Mine"}}
    changed["loops"]["state"] = COMPOSE
    torch.save(changed, "z.ckpt")
    model = GAN.load_from_checkpoint("z.ckpt")
    trainer(Path(), max_steps=51).fit(model, ImageDataModule("digits"), ckpt_path="z.ckpt")
    assert not Path(MARK).exists()
    assert "stranger" not in sys.modules


@pytest.mark.parametrize("precious", ["precious.ckpt", "runs/../precious.txt", "checkpoints/../precious.ckpt"])
def test_files_that_a_checkpoint_calls_its_previous_ones_are_left_alone(precious):
    Path("checkpoints").mkdir()
    Path("runs").mkdir()
    Path(precious).write_text("mine")
    checkpoint = stranger("x.ckpt")
    folder = Path("checkpoints").absolute()
    last = LastCheckpoint(str(folder), 1)
    path = f"{folder}/../{precious}"
    checkpoint["callbacks"] = {
        last.state_key: {"dirpath": str(folder), "best_model_path": path, "best_model_score": None}
    }
    torch.save(checkpoint, "x.ckpt")
    model = GAN.load_from_checkpoint("x.ckpt")
    run = trainer(Path(), max_steps=51, callbacks=[last], enable_checkpointing=True)
    run.fit(model, ImageDataModule("digits"), ckpt_path="x.ckpt")
    assert (folder / "last.ckpt").is_file()
    assert Path(precious).read_text() == "mine"


@pytest.mark.parametrize("extractor", ["stranger.Net", "lit_gans.cli.main", "x/net.pt", "timm:hf-hub:x/y", "a:b?c=d"])
def test_what_a_loss_looks_at_pictures_with(extractor):
    spec = {"class_path": "lit_gans.regularizers.PerceptualLoss", "init_args": {"extractor": extractor}}
    with pytest.raises(UntrustedError, match=re.escape(extractor.partition("?")[0])):
        resolve(GAN, {"regularizers": [spec]})
    for harmless in ("vgg19", "digits", "torchvision:resnet18", "timm:resnet50.a1_in1k?image_size=32", "mine.Net"):
        spec["init_args"] = {"extractor": harmless, "layers": ["conv1_1"]}
        (call,) = resolve(GAN, {"regularizers": [spec]}, ("mine",))["regularizers"]
        assert call.arguments["extractor"] == harmless


def test_names_are_looked_at_before_the_first_is_imported():
    Path("first.py").write_text(MINE.replace("Mine", "First"))
    value = [{"class_path": "first.First"}, {"class_path": "os.system"}]
    with pytest.raises(UntrustedError, match=r"os\.system"):
        resolve(GAN, {"generator": value[0], "discriminator": value[1]}, ["first"])
    assert "first" not in sys.modules
    check_names(value, ["first", "os"])
    with pytest.raises(UntrustedError, match=r"os\.system"):
        class_named("os.system", ["os"])  # no class, whoever is trusted
    with pytest.raises(UntrustedError, match=r"lit_gansx"):
        class_named("lit_gansx.Mine")


def test_a_trusted_module_that_is_not_there():
    with pytest.raises(ValueError, match=r"nowhere\.Net cannot be imported.*not on the path"):
        class_named("nowhere.Net", ["nowhere"])


def test_what_is_ours_and_torchs_is_built():
    layer = {"class_path": "torch.nn.TransformerEncoderLayer"}
    layer["init_args"] = {"d_model": 8, "nhead": 1, "activation": {"class_path": "torch.nn.modules.activation.ReLU"}}
    arguments = {
        "g_optimizer": {"class_path": "torch.optim.RMSprop", "init_args": {"lr": 0.5}},
        "d_optimizer": {"class_path": "torch.optim.adamw.AdamW"},
        "g_scheduler": {"class_path": "torch.optim.lr_scheduler.CosineAnnealingLR", "init_args": {"T_max": 7}},
        "g_clip": {"class_path": "lit_gans.game.clipping.NormClip", "init_args": {"max_norm": 2.0}},
        "augment": {"class_path": "lit_gans.augment.DiffAugment"},
        "regularizers": [{"class_path": "lit_gans.regularizers.R1", "init_args": {"weight": 3.0}}],
        "betas": [0.0, 0.9],
        "discriminator": layer,
    }
    built = make(resolve(GAN, arguments))
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = built["g_optimizer"]([parameter])
    assert (type(optimizer), optimizer.defaults["lr"]) == (torch.optim.RMSprop, 0.5)
    assert built["d_optimizer"] is torch.optim.AdamW
    assert built["g_scheduler"](optimizer).T_max == 7
    assert built["g_clip"].max_norm == 2.0
    assert type(built["augment"]).__name__ == "DiffAugment"
    assert built["regularizers"][0].weight == 3.0
    assert built["betas"] == (0.0, 0.9)
    assert type(built["discriminator"]).__name__ == "TransformerEncoderLayer"


def test_the_command_line_reads_a_good_one():
    main(["sample", str(GOOD), "-n", "4", "-o", "x.png"])
    assert Path("x.png").is_file()

"""The command ``translate``: what becomes of every kind of file, and that it is what the model makes, bit for bit."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import build, loader
from PIL import Image
from refusals import refused
from toys import trainer

from lit_gans import load
from lit_gans.cli import main
from lit_gans.functional import imresize, to_uint8
from lit_gans.models import CycleGAN, Pix2Pix
from lit_gans.networks import PatchDiscriminator, ResNetTranslator, UNetGenerator

GOOD = Path(__file__).parent / "data" / "format_1.ckpt"
TRUST = ("--import", "pictures")


def saved(model, path, name=None):
    """The checkpoint of a model: of one step of training with pairs of that name, or of none."""
    run = trainer(path.parent, max_steps=1)
    if name:
        run.fit(model, loader(name, n=4))
    else:
        run.strategy.connect(model)
        model.trainer = run
    run.save_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Of small models: for RGB a CycleGAN and a matting Pix2Pix, for grey the others."""
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    generator = ResNetTranslator(blocks=1, base_channels=4)
    colour = CycleGAN(generator, PatchDiscriminator(in_channels=3, layers=1, base_channels=4), init_std=0.2)
    matting = UNetGenerator(in_channels=3, out_channels=1, depth=5, base_channels=4)
    matte = Pix2Pix(matting, PatchDiscriminator(in_channels=4, layers=1, base_channels=4), init_std=0.2)
    paths = {"colour": saved(colour, folder / "colour.ckpt"), "matte": saved(matte, folder / "matte.ckpt")}
    for name in ("SRGAN", "GatedInpainting"):
        paths[name] = saved(build(name, ema_decay=0.5), folder / f"{name}.ckpt", name)
    paths["other SRGAN"] = saved(build("SRGAN", seed=1, ema_decay=0.5), folder / "other.ckpt", "SRGAN")
    return paths


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def drawn(height, width, channels=3, seed=0, dtype=np.uint8):
    """A picture of noise."""
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def floats(array, channels=3):
    """An array of a file as a source, (1, C, H, W) in [-1, 1]."""
    x = torch.from_numpy(array.astype(np.float32) / (np.iinfo(array.dtype).max / 2) - 1)
    x = x[None] if x.ndim == 2 else x.permute(2, 0, 1)
    return x.expand(channels, -1, -1)[None]


def levels(made):
    """What a file of made pictures must hold, (H, W, C)."""
    return to_uint8(made)[0].permute(1, 2, 0).numpy()


def sixteen(made):
    """The same in 16 bits."""
    return (made * np.float32(32767.5) + np.float32(32767.5)).round()


def luma(rgb):
    return (rgb.astype(np.float32) @ np.float32([0.299, 0.587, 0.114])).round()


def translate(*words, code=0):
    """Run the command, which ends with this code."""
    if code == 0:
        main(["translate", *map(str, words)])
        return
    with pytest.raises(SystemExit) as left:
        main(["translate", *map(str, words)])
    assert left.value.code == code


def read(path):
    return np.array(Image.open(path))


def folder_of_everything():
    """Each kind of file there is, by name."""
    Path("in/deeper/still").mkdir(parents=True)
    kinds = {"one": (1, 1), "few": (5, 3), "odd": (257, 255), "flat": (33, 640)}
    arrays = {name: drawn(*size) for name, size in kinds.items()}
    for name, array in arrays.items():
        Image.fromarray(array).save(f"in/{name}.png")
    Image.fromarray(drawn(20, 31, 1)).save("in/deeper/grey.png")
    Image.fromarray(drawn(20, 31, 4)).save("in/deeper/still/clear.png")
    Image.fromarray(drawn(20, 31)).quantize(16).save("in/palette.gif")
    palette = Image.fromarray(drawn(20, 31)).quantize(16)
    palette.save("in/palette_clear.png", transparency=3)
    Image.fromarray(drawn(20, 31, 1, dtype=np.uint16)).save("in/deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # upright once it is turned clockwise
    Image.fromarray(drawn(20, 31)).save("in/turned.png", exif=exif)
    Path("in/broken.png").write_text("no picture")
    Path("in/notes.txt").write_text("no picture either")
    return arrays


def test_a_folder_of_everything(checkpoints, capsys):
    arrays, model = folder_of_everything(), load(checkpoints["colour"])
    translate(checkpoints["colour"], "in", "-o", "out", code=1)
    out, err = capsys.readouterr()
    assert err.splitlines()[-1] == "lit_gans: broken.png: not an image"
    assert out == "10 pictures of CycleGAN, a2b → out; 1 failed\n"
    made = {path.relative_to("out").as_posix(): Image.open(path) for path in Path("out").rglob("*.*")}
    plain = ("one", "few", "odd", "flat", "palette", "palette_clear", "deep", "turned")
    assert made.keys() == {f"{name}.png" for name in plain} | {"deeper/grey.png", "deeper/still/clear.png"}
    arrays["turned"] = np.rot90(drawn(20, 31), -1).copy()
    arrays["palette"] = np.array(Image.open("in/palette.gif").convert("RGB"))
    for name, array in arrays.items():
        assert made[f"{name}.png"].mode == "RGB"
        np.testing.assert_array_equal(np.array(made[f"{name}.png"]), levels(model.translate(floats(array))), name)

    grey = np.array(made["deeper/grey.png"])
    expected = luma(levels(model.translate(floats(drawn(20, 31, 1)))))
    assert made["deeper/grey.png"].mode == "L"
    np.testing.assert_array_equal(grey, expected)

    deep, expected = np.array(made["deep.png"]), model.translate(floats(drawn(20, 31, 1, dtype=np.uint16)))
    assert deep.dtype == np.uint16
    assert abs(deep - luma(sixteen(expected[0].permute(1, 2, 0).numpy()))).max() <= 1
    assert len(np.unique(deep % 256)) > 100  # not 8 bits in 16

    for name, source in {"deeper/still/clear": drawn(20, 31, 4), "palette_clear": None}.items():
        if source is None:
            source = np.array(Image.open(f"in/{name}.png").convert("RGBA"))
            assert 0 < (source[..., 3] == 0).mean() < 1
        image = np.array(made[f"{name}.png"])
        np.testing.assert_array_equal(image[..., 3], source[..., 3])
        np.testing.assert_array_equal(image[..., :3], levels(model.translate(floats(source[..., :3]))))


def test_a_zip_gives_the_same_and_writes_nowhere_else(checkpoints, capsys, tmp_path):
    Path("in/deeper").mkdir(parents=True)
    for name in ("a", "deeper/b"):
        Image.fromarray(drawn(9, 14, seed=len(name))).save(f"in/{name}.png")
    with zipfile.ZipFile("in.zip", "w") as archive:
        for name in ("a.png", "deeper/b.png"):
            archive.write(f"in/{name}", name)
        archive.writestr(f"{tmp_path}/outside.png", Path("in/a.png").read_bytes())
    translate(checkpoints["colour"], "in", "-o", "out")
    translate(checkpoints["colour"], "in.zip", code=1)
    assert "outside.png: its name leads out of the folder" in capsys.readouterr().err
    assert not list(tmp_path.glob("outside*"))
    assert {p.relative_to("in_translated").as_posix() for p in Path("in_translated").rglob("*.*")} == {
        "a.png",
        "deeper/b.png",
    }
    for name in ("a.png", "deeper/b.png"):
        np.testing.assert_array_equal(read(f"in_translated/{name}"), read(f"out/{name}"))


def test_names_are_kept_and_nothing_is_overwritten(checkpoints, capsys):
    Path("in").mkdir()
    for name in ("cat.jpg", "cat.png", "dog.bmp"):
        Image.fromarray(drawn(9, 12)).save(f"in/{name}")
    before = Path("in/cat.png").read_bytes()
    path = checkpoints["colour"]
    translate(path, "in")
    results = {"cat.jpg_translated.png", "cat.png_translated.png", "dog_translated.png"}
    assert {p.name for p in Path("in").iterdir()} == results | {"cat.jpg", "cat.png", "dog.bmp"}
    mark = b"mine"
    Path("in/dog_translated.png").write_bytes(mark)
    assert "exist: add --overwrite" in refused(capsys, "translate", path, "in")
    assert Path("in/dog_translated.png").read_bytes() == mark
    translate(path, "in", "--overwrite")
    assert {p.name for p in Path("in").iterdir()} == results | {"cat.jpg", "cat.png", "dog.bmp"}  # made of none of them
    assert read("in/dog_translated.png").shape == (9, 12, 3)
    for words in (("in", "-o", "in"), ("in/cat.png", "-o", "in/cat.png")):
        message = refused(capsys, "translate", path, *words, "--overwrite")
        assert "would take the place of a picture" in message
    assert Path("in/cat.png").read_bytes() == before
    translate(path, "in/dog.bmp", "-o", "dog.webp")
    translate(path, "in/dog.bmp", "-o", "dog.jpg")
    translate(path, "in/dog.bmp", "-o", "new/", "--suffix", "_b")
    np.testing.assert_array_equal(read("dog.webp"), read("new/dog_b.png"))
    assert Image.open("dog.jpg").format == "JPEG"
    translate(path, "in", "-o", "in/made")
    translate(path, "in", "-o", "in/made", "--overwrite")
    assert not list(Path("in/made").glob("made"))
    assert "in/made/cat.jpg.png" in [p.as_posix() for p in Path("in/made").iterdir()]


def test_enlarged_pictures_keep_sixteen_bits_and_their_transparency(checkpoints):
    model = load(checkpoints["SRGAN"], trust=["pictures"])
    clear, deep = drawn(7, 11, 4), drawn(7, 11, 1, dtype=np.uint16)
    Image.fromarray(clear).save("clear.png")
    Image.fromarray(deep).save("deep.png")
    Image.fromarray(clear[..., :2].copy(), "LA").save("la.png")
    for name in ("clear", "deep", "la"):
        translate(checkpoints["SRGAN"], f"{name}.png", *TRUST)
    made = model.translate(floats(deep, 1))[0, 0].numpy()
    np.testing.assert_array_equal(read("deep_translated.png"), sixteen(made))
    image = Image.open("la_translated.png")
    assert (image.mode, image.size) == ("LA", (22, 14))
    alpha = imresize(torch.from_numpy(clear[..., 1] / np.float32(255)), 2)
    np.testing.assert_array_equal(np.array(image)[..., 1], (alpha * 255).round().clamp(0, 255).to(torch.uint8))
    np.testing.assert_array_equal(np.array(image)[..., :1], levels(model.translate(floats(clear[..., 0], 1))))
    grey = np.array(Image.fromarray(clear[..., :3].copy()).convert("L"))
    image = Image.open("clear_translated.png")
    assert image.mode == "LA"  # the network knows no colours
    np.testing.assert_array_equal(np.array(image)[..., :1], levels(model.translate(floats(grey, 1))))


def test_holes_are_filled_and_the_rest_is_what_it_was(checkpoints, capsys):
    path, array = checkpoints["GatedInpainting"], drawn(21, 30, 1)
    for folder in ("in/deeper", "masks/deeper"):
        Path(folder).mkdir(parents=True)
    soft = np.zeros((21, 30), np.uint8)
    soft[5:9, 11:20], soft[6, 12] = 128, 127
    hole = soft > 127
    for name in ("a", "deeper/b"):
        Image.fromarray(array).save(f"in/{name}.png")
        Image.fromarray(soft).save(f"masks/{name}.bmp")
    translate(path, "in", "-o", "out", "--mask", "masks")
    translate(path, "in/a.png", "-o", "tiled.png", "--mask", "masks/a.bmp", "--tile", 16)
    assert "more than half" not in capsys.readouterr().err
    source = torch.cat([floats(array, 1).masked_fill(torch.from_numpy(hole), 0), torch.from_numpy(hole)[None, None]], 1)
    expected = levels(load(path).translate(source))[..., 0]
    for name in ("out/a.png", "out/deeper/b.png", "tiled.png"):
        np.testing.assert_array_equal(read(name)[~hole], array[~hole])
        assert abs(read(name).astype(int) - expected).max() <= (name == "tiled.png")
    assert (expected[hole] != array[hole]).mean() > 0.9
    Image.fromarray(255 - soft).save("inverted.png")
    translate(path, "in/a.png", "--mask", "inverted.png", "-o", "new.png")
    assert "more than half is hole in inverted.png: white is the hole" in capsys.readouterr().err
    Image.fromarray(soft[:, :-1]).save("narrow.png")
    Path("masks/deeper/b.bmp").unlink()
    for words, told in {
        ("in",): "GatedInpainting fills holes: give --mask",
        ("in", "--mask", "narrow.png"): "2 masks are not of their picture's size: narrow.png (29x21, a.png 30x21)",
        ("in", "--mask", "masks"): "1 of 2 pictures have no mask of their name in masks: deeper/b.png",
        ("in", "--mask", "nowhere"): "there is nothing at nowhere",
    }.items():
        assert told in refused(capsys, "translate", path, *words, "-o", "new")
    assert not Path("new").exists()
    assert "CycleGAN fills no holes" in refused(capsys, "translate", checkpoints["colour"], "in", "--mask", "masks")


def test_the_way_back(checkpoints, capsys):
    Image.fromarray(drawn(16, 20)).save("x.png")
    translate(checkpoints["colour"], "x.png", "--direction", "b2a")
    assert "CycleGAN, b2a" in capsys.readouterr().out
    model = load(checkpoints["colour"])
    expected = levels(model.translate(floats(drawn(16, 20)), direction="b2a"))
    np.testing.assert_array_equal(read("x_translated.png"), expected)
    assert (expected != levels(model.translate(floats(drawn(16, 20))))).mean() > 0.5
    message = refused(capsys, "translate", checkpoints["matte"], "x.png", "--direction", "b2a", "--overwrite")
    assert "Pix2Pix knows a2b, not 'b2a'" in message


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_weights_between_two_checkpoints(checkpoints, share):
    one, other = (load(checkpoints[name], trust=["pictures"]) for name in ("SRGAN", "other SRGAN"))
    deep = drawn(7, 11, 1, dtype=np.uint16)
    Image.fromarray(deep).save("x.png")
    translate(checkpoints["SRGAN"], "x.png", "--alpha", share, "--with", checkpoints["other SRGAN"], *TRUST)
    state, theirs = one.g_ema.state_dict(), other.g_ema.state_dict()
    for key, value in state.items():
        if value.is_floating_point():
            value.copy_({0: value, 0.5: (value + theirs[key]) / 2, 1: theirs[key]}[share])
    expected = sixteen(one.translate(floats(deep, 1))[0, 0].numpy())
    assert abs(read("x_translated.png") - expected).max() <= (share == 0.5)
    assert not torch.equal(one.generator.first[0].weight, other.generator.first[0].weight)


def test_weights_of_two_networks_are_not_mixed(checkpoints, capsys, tmp_path):
    Image.fromarray(drawn(7, 11)).save("x.png")
    wide = build("SRGAN")
    wide.generator.first[0] = torch.nn.Conv2d(1, 4, 5, padding=2)
    wider = saved(build("CycleGAN"), tmp_path / "grey.ckpt")
    told = {
        checkpoints["SRGAN"]: "only one of both networks has body.0.residual.0.weight",
        wider: "encoder.1.weight is (4, 1, 7, 7) there and (4, 3, 7, 7) in",
        GOOD: "CGAN makes pictures of noise",
        "nowhere.ckpt": "no checkpoint at nowhere.ckpt",
    }
    for other, message in told.items():
        words = ("x.png", "--alpha", 0.5, "--with", other, *TRUST)
        assert message in refused(capsys, "translate", checkpoints["colour"], *words)


def test_a_matte_cuts_its_picture_out(checkpoints, capsys):
    model, array = load(checkpoints["matte"]), drawn(40, 50, 4)
    Image.fromarray(array[..., :3].copy()).save("plain.png")
    Image.fromarray(array).save("clear.png")
    Image.fromarray(array[..., 0].copy()).save("grey.png")
    for name in ("plain", "clear", "grey"):
        translate(checkpoints["matte"], f"{name}.png", "--apply-mask")
    translate(checkpoints["matte"], "plain.png", "-o", "matte.png")
    matte = levels(model.translate(floats(array[..., :3])))[..., 0]
    assert matte.std() > 1
    np.testing.assert_array_equal(read("matte.png"), matte)
    np.testing.assert_array_equal(read("plain_translated.png"), np.dstack([array[..., :3], matte]))
    alpha = (matte.astype(np.float32) * array[..., 3] / 255).round()
    np.testing.assert_array_equal(read("clear_translated.png"), np.dstack([array[..., :3], alpha]))
    image = Image.open("grey_translated.png")
    assert image.mode == "LA"
    np.testing.assert_array_equal(np.array(image)[..., 0], array[..., 0])
    assert "wants a model that makes mattes" in refused(
        capsys, "translate", checkpoints["colour"], "plain.png", "--apply-mask", "-o", "x.png"
    )


def test_the_mode_is_the_checkpoints_unless_another_is_asked_for(checkpoints, capsys):
    Image.fromarray(drawn(32, 32)).save("x.png")
    model = load(checkpoints["matte"])
    for words, mode, seed in (((), "train", 0), (("--seed", 3), "train", 3), (("--eval",), "eval", 0)):
        translate(checkpoints["matte"], "x.png", "--overwrite", *words)
        told = "in the mode eval, where the checkpoint says train" in capsys.readouterr().out
        assert told == (mode == "eval")
        expected = levels(model.translate(floats(drawn(32, 32)), seed, test_mode=mode))[..., 0]
        np.testing.assert_array_equal(read("x_translated.png"), expected)


def test_the_average_or_the_live_generator(checkpoints):
    Image.fromarray(drawn(8, 8, 1)).save("x.png")
    model = load(checkpoints["SRGAN"], trust=["pictures"])
    with torch.no_grad():
        model.g_ema.last[0].bias += 0.5
    saved(model, Path("x.ckpt"))
    for words, ema in (((), True), (("--live",), False)):
        translate("x.ckpt", "x.png", "--overwrite", *words, *TRUST)
        expected = levels(model.translate(floats(drawn(8, 8, 1), 1), ema=ema))[..., 0]
        np.testing.assert_array_equal(read("x_translated.png"), expected)


def test_bfloat16_and_what_it_cannot_hold(checkpoints, capsys, monkeypatch):
    Image.fromarray(drawn(16, 20)).save("x.png")
    translate(checkpoints["colour"], "x.png", "-o", "32.png")
    translate(checkpoints["colour"], "x.png", "-o", "16.png", "--precision", "bf16")
    there = abs(read("32.png").astype(int) - read("16.png"))
    assert 0 < there.mean() < 5
    forward, limit = ResNetTranslator.forward, [False]

    def overflows(self, x):
        made = forward(self, x)
        return made / 0 if limit[0] or torch.is_autocast_enabled("cpu") else made

    monkeypatch.setattr(ResNetTranslator, "forward", overflows)
    capsys.readouterr()
    translate(checkpoints["colour"], "x.png", "-o", "again.png", "--precision", "bf16")
    assert "not finite in bfloat16, made again in float32: x.png" in capsys.readouterr().out
    np.testing.assert_array_equal(read("again.png"), read("32.png"))
    limit[0] = True
    translate(checkpoints["colour"], "x.png", "-o", "never.png", code=1)
    assert "x.png: the network makes NaN or infinite values: take an earlier" in capsys.readouterr().err
    assert not Path("never.png").exists()


def test_tiles_are_told_of(checkpoints, capsys):
    Image.fromarray(drawn(40, 90)).save("x.png")
    translate(checkpoints["colour"], "x.png", "-o", "whole.png")
    assert "tiles" not in capsys.readouterr().out
    translate(checkpoints["colour"], "x.png", "-o", "tiled.png", "--tile", 24)
    out = capsys.readouterr().out
    assert "x.png in 8 tiles that overlap by 20 pixels; the tone jumps by" in out
    assert abs(read("whole.png").astype(int) - read("tiled.png")).max() <= 1
    translate(checkpoints["colour"], "x.png", "-o", "fast.png", "--tile", 24, "--fast")
    assert "contrast differs" in capsys.readouterr().out
    translate(checkpoints["matte"], "x.png", "-o", "matte.png", "--tile", 24)
    out = capsys.readouterr().out
    assert "not in tiles, BatchNorm2d of UNetGenerator in the mode train depends on the whole picture: x.png" in out


def test_noise_and_pictures_have_a_command_each(checkpoints, capsys):
    Image.fromarray(drawn(8, 8)).save("x.png")
    assert "CGAN makes pictures of noise, not of pictures: use the command sample" in refused(
        capsys, "translate", GOOD, "x.png"
    )
    message = refused(capsys, "sample", checkpoints["colour"], "-o", "y.png")
    assert "CycleGAN makes pictures of pictures, not of noise: use the command translate" in message


def test_what_cannot_work_is_refused(checkpoints, capsys, tmp_path):
    Path("in").mkdir()
    Path("empty").mkdir()
    Image.fromarray(drawn(8, 8)).save("in/x.png")
    Path("in/file").write_text("")
    path = checkpoints["colour"]
    for words, told in {
        (path, "nowhere"): "there is nothing at nowhere",
        ("nowhere.ckpt", "in"): "no checkpoint at nowhere.ckpt",
        (path, "empty"): "there are no pictures in empty",
        (path, "in/file"): "in/file is no picture that can be read",
        (path, "in/x.png", "-o", "x.tif"): "-o x.tif: end it with .png",
        (path, "in/x.png", "-o", "nowhere/x.png"): "there is no folder nowhere",
        (path, "in", "-o", "x.png"): "there may be several pictures in in: name a folder",
        (path, "in", "-o", "in/file"): "-o in/file is a file",
        (path, "in", "--suffix", "../x"): "it is the end of a name",
        (path, "in", "--alpha", "0.5"): "--alpha A and --with CKPT2 go together",
        (path, "in", "--alpha", "2", "--with", path): "--alpha must be in 0..1",
        (path, "in", "--seed", "-1"): "--seed must be in",
        (path, "in", "--device", "cuda:77"): "--device cuda:77",
        (path, "in", "--tyle", "8"): "unknown option 'tyle': did you mean tile",
    }.items():
        assert told in refused(capsys, "translate", *words)
    assert {p.name for p in tmp_path.rglob("*")} == {"in", "x.png", "file", "empty"}


def test_a_format_that_cannot_hold_a_picture_and_bits_of_no_known_range(checkpoints, capsys):
    Image.fromarray(drawn(8, 8, 4)).save("clear.png")
    Image.fromarray(np.zeros((8, 8), np.int32)).save("wide.tif")
    translate(checkpoints["colour"], "clear.png", "-o", "x.jpg", code=1)
    assert "clear.png: .jpg holds no transparency" in capsys.readouterr().err
    translate(checkpoints["colour"], "wide.tif", "-o", "x.png", code=1)
    assert "wide.tif: 32 bits a pixel have no known range" in capsys.readouterr().err
    assert not list(Path().glob("x.*"))
    assert not list(Path().glob(".x*"))


def test_a_hole_that_the_network_cannot_fill_is_told(tmp_path, capsys):
    path = saved(build("ContextEncoder"), tmp_path / "x.ckpt")
    Image.fromarray(drawn(30, 30, 1)).save("x.png")
    Image.fromarray(np.uint8([[0] * 10 + [255] * 12 + [0] * 8] * 30)).save("mask.png")
    translate(path, "x.png", "--mask", "mask.png", code=1)
    assert "x.png: the hole spans 30 × 12 pixels" in capsys.readouterr().err

import pytest
import torch
from launching import python
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms.functional import pil_to_tensor
from torchvision.utils import make_grid

from lit_gans.callbacks import SampleGrid, samples
from lit_gans.callbacks.samples import mosaic, scatter, whole_rows
from lit_gans.data import ImageDataModule
from lit_gans.functional import to_uint8
from lit_gans.models import GAN


@pytest.fixture(autouse=True)
def _as_large_as_they_are(request, monkeypatch):
    if "magnified" not in request.node.name:
        monkeypatch.setattr(samples, "_LEGIBLE", 1)


@pytest.mark.parametrize(("size", "factor"), [(8, 8), (28, 2), (32, 2), (33, 1), (64, 1), (128, 1)])
def test_small_images_are_magnified_by_whole_factors(size, factor):
    images = torch.randint(0, 256, (6, 1, size, size), dtype=torch.uint8)
    picture = mosaic(images)
    assert picture.shape == (3, 2 * (factor * size + 2) + 2, 3 * (factor * size + 2) + 2)
    inside = picture[0, 2 : 2 + factor * size : factor, 2 : 2 + factor * size : factor]
    assert torch.equal(inside, images[0, 0])
    last = picture[0, 2 : 2 + factor * size, 2 : 2 + factor * size]
    assert torch.equal(last, images[0, 0].repeat_interleave(factor, 0).repeat_interleave(factor, 1))


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (6, 3), (12, 4), (48, 8), (50, 10), (53, 8), (64, 8), (100, 10)])
def test_rows_are_whole_where_n_allows_it(n, columns):
    assert whole_rows(n) == columns


def test_grids_by_class_have_whole_rows():
    seen = {}

    class Labelled(GAN):
        def sample(self, n, y=None, **kwargs):
            seen["y"] = y
            return torch.zeros(n, 1, 4, 4)

    model = Labelled(nn.Linear(2, 2), nn.Linear(2, 1), num_classes=10)
    assert SampleGrid(n=64).grid(model).shape == (3, 6 * 6 + 2, 10 * 6 + 2)
    assert seen["y"].tolist() == list(range(10)) * 6


pytestmark = pytest.mark.filterwarnings("ignore:Found .* in eval mode")  # the module below keeps one so


class Foreign(LightningModule):
    """Somebody else's module, with automatic optimisation; its generator draws from the global RNG."""

    def __init__(self, channels=1):
        super().__init__()
        self.channels = channels
        self.net = nn.Sequential(nn.Linear(4, channels * 64), nn.BatchNorm1d(channels * 64), nn.Dropout(0.5), nn.Tanh())
        self.head = nn.Linear(1, 1).eval()  # frozen by its owner, and to stay so
        self.noise = []
        self.modes = []

    def sample(self, n):
        self.modes.append((self.training, self.net.training, torch.is_grad_enabled()))
        return self.net(torch.randn(n, 4, device=self.device)).unflatten(1, (self.channels, 8, 8))

    def training_step(self, batch, batch_idx):
        assert self.net.training
        assert not self.head.training
        self.noise.append(torch.rand(()).item())
        self.log("loss_of_step", float(self.trainer.global_step), on_step=True)
        return self.net(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(module, tmp_path, callbacks, logger=False, batches=7, **kwargs):
    torch.manual_seed(0)
    kwargs = {"max_steps": batches, "log_every_n_steps": 1, **kwargs}
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=logger,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **kwargs,
    )
    trainer.fit(module, DataLoader([torch.randn(8, 4) for _ in range(batches)], batch_size=None))
    return trainer


def read(path):
    return pil_to_tensor(Image.open(path))


def test_files_at_every_n_steps_and_at_the_end(tmp_path):
    module = Foreign()
    fit(module, tmp_path, [SampleGrid(n=6, every_n_steps=3)])
    files = sorted((tmp_path / "samples").iterdir())
    assert [file.name for file in files] == ["step-00000003.png", "step-00000006.png", "step-00000007.png"]
    pictures = [read(file) for file in files]
    assert not torch.equal(pictures[0], pictures[1])
    torch.manual_seed(0)
    with torch.no_grad():
        expected = make_grid(to_uint8(module.eval().sample(6)), nrow=3)
    assert torch.equal(pictures[-1], expected)
    assert expected.shape == (3, 2 * 10 + 2, 3 * 10 + 2)


def test_the_end_is_not_drawn_twice(tmp_path):
    fit(Foreign(), tmp_path, [SampleGrid(n=4, every_n_steps=2)], batches=4)
    assert [file.name for file in sorted((tmp_path / "samples").iterdir())] == [
        "step-00000002.png",
        "step-00000004.png",
    ]


def test_accumulated_batches_are_one_step(tmp_path):
    fit(Foreign(), tmp_path, [SampleGrid(n=4, every_n_steps=2)], batches=8, accumulate_grad_batches=2, max_epochs=1)
    assert [file.name for file in sorted((tmp_path / "samples").iterdir())] == [
        "step-00000002.png",
        "step-00000004.png",
    ]


def test_the_same_latents_each_time(tmp_path):
    module = Foreign()
    callback = SampleGrid(n=4, seed=3)
    first = callback.grid(module)
    torch.rand(5)
    assert torch.equal(callback.grid(module), first)
    assert not torch.equal(SampleGrid(n=4, seed=4).grid(module), first)


def test_training_is_not_disturbed(tmp_path):
    quiet, watched = Foreign(), Foreign()
    watched.load_state_dict(quiet.state_dict())
    fit(quiet, tmp_path / "quiet", [])
    fit(watched, tmp_path / "watched", [SampleGrid(n=4, every_n_steps=2)])
    assert watched.noise == quiet.noise
    assert all(
        torch.equal(a, b) for a, b in zip(quiet.state_dict().values(), watched.state_dict().values(), strict=True)
    )
    assert watched.modes == [(False, False, False)] * 4


def test_modes_come_back_after_an_error():
    class Broken(Foreign):
        def sample(self, n):
            raise RuntimeError("no luck")

    module = Broken()
    with pytest.raises(RuntimeError, match="no luck"):
        SampleGrid().grid(module)
    assert module.training
    assert module.net.training
    assert not module.head.training


@pytest.mark.parametrize(("channels", "shown"), [(1, 1), (2, 1), (3, 3), (5, 3)])
def test_channels(channels, shown):
    module = Foreign(channels).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        image = to_uint8(module.sample(1))[0, :shown].expand(3, 8, 8)
    assert torch.equal(SampleGrid(n=1).grid(module), image)


def test_range_is_rounded_and_clamped():
    module = Foreign()
    module.sample = lambda n: torch.tensor([-1.5, -1.0, 0.0, 1.0, 1.5]).view(n, 1, 1, 1).expand(n, 1, 2, 2)
    grid = SampleGrid(n=5, nrow=5).grid(module)
    assert grid[0, 2, 2::4].tolist() == [0, 0, 128, 255, 255]


def test_our_models_get_seed_ema_and_labels():
    class Labelled(nn.Module):
        def forward(self, z, y):
            return (y / 4).view(-1, 1, 1, 1).expand(-1, 1, 2, 2) + 0 * z.sum()

    calls = []

    class Watched(GAN):
        def sample(self, n, y=None, seed=None, ema=True):
            calls.append((n, y, seed, ema))
            return super().sample(n, y, seed, ema)

    model = Watched(Labelled(), nn.Linear(1, 1), latent_dim=2, num_classes=4)
    grid = SampleGrid(n=8, seed=5, ema=False).grid(model)
    (n, y, seed, ema) = calls[0]
    assert (n, y.tolist(), seed, ema) == (8, [0, 1, 2, 3, 0, 1, 2, 3], 5, False)
    expected = to_uint8(torch.arange(4) / 4).tolist()
    assert grid[0, 2, 2::4].tolist() == expected  # one class a column
    assert grid[0, 6, 2::4].tolist() == expected


def test_tensorboard_and_its_steps(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="tb", version="0")
    fit(Foreign(), tmp_path, [SampleGrid(n=4, every_n_steps=3)], logger)
    events = EventAccumulator(str(tmp_path / "tb/0"), size_guidance={"images": 0}).Reload()
    images = events.Images("samples")
    assert [image.step for image in images] == [2, 5, 6]
    assert [scalar.step for scalar in events.Scalars("loss_of_step")] == list(range(7))
    assert (images[0].height, images[0].width) == (22, 22)
    assert (tmp_path / "tb/0/samples/step-00000003.png").exists()


def test_wandb_and_its_steps(tmp_path, monkeypatch):
    logged = []
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    monkeypatch.setattr(WandbLogger, "log_image", lambda self, key, images, step: logged.append((key, images, step)))
    trainer = fit(Foreign(), tmp_path, [SampleGrid(n=4, every_n_steps=3)])
    trainer.loggers = [CSVLogger(tmp_path), logger]
    SampleGrid.draw(callback := trainer.callbacks[0], trainer, trainer.lightning_module, 9)
    ((key, (image,), step),) = logged
    assert (key, step) == ("samples", 8)
    assert torch.equal(pil_to_tensor(image), callback.grid(trainer.lightning_module))


def test_csv_logger_names_the_folder(tmp_path):
    fit(Foreign(), tmp_path, [SampleGrid(n=4)], CSVLogger(tmp_path, name="run", version="a"))
    assert [file.name for file in (tmp_path / "run/a/samples").iterdir()] == ["step-00000007.png"]


def test_a_folder_of_ones_own(tmp_path):
    fit(Foreign(), tmp_path, [SampleGrid(n=4, dirpath=tmp_path / "a/b")], CSVLogger(tmp_path, name="run"))
    assert [file.name for file in (tmp_path / "a/b").iterdir()] == ["step-00000007.png"]


def test_a_full_disk_leaves_no_half_file_and_training_goes_on(tmp_path, monkeypatch):
    def save(self, path, format):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.warns(UserWarning, match="No space left on device"):
        trainer = fit(Foreign(), tmp_path, [SampleGrid(n=4, every_n_steps=2)])
    assert trainer.global_step == 7
    assert list((tmp_path / "samples").iterdir()) == []


def test_fast_dev_run_writes_nothing(tmp_path):
    module = Foreign()
    fit(module, tmp_path, [SampleGrid(n=4)], fast_dev_run=True)
    assert len(module.modes) == 1
    assert list(tmp_path.rglob("*.png")) == []


def test_a_module_without_sample_is_refused(tmp_path):
    module = Foreign()
    module.sample = None
    with pytest.raises(TypeError, match=r"draws with module\.sample\(n\), which Foreign lacks"):
        fit(module, tmp_path, [SampleGrid()])
    assert module.noise == []


@pytest.mark.parametrize("arguments", [{"n": 0}, {"every_n_steps": 0}, {"nrow": 0}, {"nrow": -1}])
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match="must be at least 1"):
        SampleGrid(**arguments)


def test_a_wrong_shape_is_named():
    module = Foreign()
    module.sample = lambda n: torch.zeros(n, 64)
    with pytest.raises(ValueError, match=r"returned shape \(9, 64\); \(9, C, H, W\) was expected"):
        SampleGrid(n=9).grid(module)


def test_wandb_is_not_imported(tmp_path):
    code = "import sys, lit_gans.callbacks; sys.exit('wandb' in sys.modules)"
    assert python("-c", code, cwd=tmp_path).returncode == 0  # where all rooms are imported, wandb is not


# points

RED = torch.tensor([214, 39, 40], dtype=torch.uint8).view(3, 1, 1)


def spots(picture):
    """Rows and columns of the red pixels."""
    return (picture == RED).all(0).nonzero().tolist()


def test_points_are_drawn_where_they_are():
    data = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    picture = scatter(torch.tensor([[0.5, 0.0]]), data, size=120)  # 100 pixels from -1 to 1
    assert spots(picture) == [[row, column] for row in (59, 60, 61) for column in (84, 85, 86)]
    greys = {tuple(pixel) for pixel in picture.flatten(1).T.tolist()} - {(214, 39, 40), (255, 255, 255)}
    assert greys == {(95, 95, 95), (175, 175, 175), (225, 225, 225)}  # the square root of the density, and the axes
    ((row, column),) = (picture[0] == 95).nonzero().tolist()
    assert (row, column) == (pytest.approx(10, abs=1), pytest.approx(110, abs=1))  # up is up


def test_points_beyond_the_data_stay_in_sight():
    data = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    picture = scatter(torch.tensor([[50.0, 0.0], [float("nan"), 0.0], [0.0, float("inf")]]), data, size=120)
    assert spots(picture) == [[row, column] for row in (59, 60, 61) for column in (118, 119)]


def test_axes_meet_at_the_origin_and_are_notched_at_whole_numbers():
    data = torch.tensor([[-1.0, -3.0], [9.0, 7.0]])  # 10 pixels a unit: the origin is in column 20, row 80
    picture = scatter(torch.zeros(0, 2), data, size=120)
    lines = picture[0] == 225
    assert lines[:, 20].all()
    assert lines[80].all()
    notched = lines[78].clone()
    notched[20] = False
    assert notched.nonzero().flatten().tolist() == pytest.approx([0, 10, *range(30, 120, 10)], abs=1)
    assert lines[:, 22].nonzero().flatten().tolist() == pytest.approx(list(range(0, 120, 10)), abs=1)


def test_axes_far_away_are_not_drawn():
    picture = scatter(torch.zeros(0, 2), torch.tensor([[500.0, 500.0], [501.0, 501.0]]), size=120)
    assert not (picture == 225).any()


def test_no_notches_where_they_would_be_one_on_another():
    lines = scatter(torch.zeros(0, 2), torch.tensor([[-900.0, -900.0], [900.0, 900.0]]), size=120)[0] == 225
    assert lines.sum(0).tolist().count(1) > 100


def test_centers_are_crosses_on_top_of_all():
    data, center = torch.tensor([[-1.0, -1.0], [1.0, 1.0]]), torch.tensor([[0.5, -0.5], [40.0, 0.0]])
    picture = scatter(center, data, center, size=120)
    rows, columns = (picture == 0).all(0).nonzero().T.tolist()
    assert set(zip(rows, columns, strict=True)) == {(85, c) for c in range(81, 90)} | {(r, 85) for r in range(81, 90)}


@pytest.mark.parametrize("points", [torch.zeros(0, 2), torch.full((3, 2), float("nan")), torch.ones(4, 2)])
def test_points_of_no_extent_make_a_picture_too(points):
    assert scatter(points, size=32).shape == (3, 32, 32)


class Points(Foreign):
    def sample(self, n):
        return self.net(torch.randn(n, 4))[:, :2]

    def training_step(self, batch, batch_idx):
        return super().training_step(torch.zeros(8, 4), batch_idx)


def test_points_are_drawn_over_the_data_of_the_trainer(tmp_path):
    module, callback = Points(), SampleGrid(n=9)
    data = ImageDataModule("ring", batch_size=8, limit=80)
    Trainer(
        accelerator="cpu", default_root_dir=tmp_path, logger=False, callbacks=[callback], max_steps=2,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    ).fit(module, datamodule=data)  # fmt: skip
    (file,) = tmp_path.rglob("*.png")
    picture = pil_to_tensor(Image.open(file))
    assert picture.shape == (3, 512, 512)
    assert len(spots(picture)) > 9
    grey = (picture[0] == picture[1]) & (picture[0] > 0) & (picture[0] < 225)
    assert 0 < grey.sum() <= 80
    assert (picture == 0).all(0).sum() == 8 * 17  # the ring's centres, of 17 pixels each
    alone = callback.grid(module)
    assert not ((alone[0] == alone[1]) & (alone[0] < 225)).any()

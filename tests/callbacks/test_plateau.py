"""When training ends, and what is kept, with metrics that follow a script."""

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from toys import Batches, build, loader, trainer

from lit_gans import GAN, BalanceReport, StopOnPlateau


class Scripted(GAN):
    """Its metric is a function of the step."""

    def on_validation_epoch_end(self):
        self.log("val/fid", self.metric(self.trainer.global_step))


def fit(tmp_path, metric, *callbacks, steps=300, every=10, **kwargs):
    toy = build("GAN")
    model = Scripted(toy.generator, toy.discriminator, latent_dim=8)
    model.metric = metric
    run = trainer(
        tmp_path,
        max_steps=steps,
        callbacks=[*callbacks],
        val_check_interval=every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        **kwargs,
    )
    run.fit(model, Batches(*[x for _ in range(100) for x, _ in loader()]), loader(8))
    return run


def valley(step):
    return abs(step - 100) + 1.0


def test_it_ends_after_so_many_looks_and_keeps_the_best(tmp_path):
    rule = StopOnPlateau("val/fid", looks=4)
    run = fit(tmp_path, valley, rule)
    assert run.global_step == 140
    assert (rule.best, rule.best_step) == (1.0, 100)
    assert torch.load(rule.path, weights_only=True)["global_step"] == 100


def test_both_looks_and_steps_must_have_passed(tmp_path):
    assert fit(tmp_path, valley, StopOnPlateau("val/fid", looks=2, patience=75)).global_step == 180
    assert fit(tmp_path, valley, StopOnPlateau("val/fid", looks=9, patience=10)).global_step == 190


def test_a_little_better_is_not_enough(tmp_path):
    rule = StopOnPlateau("val/fid", looks=3, min_delta=0.5)
    assert fit(tmp_path, lambda step: 99 - step / 10, rule).global_step == 300
    rule = StopOnPlateau("val/fid", looks=3, min_delta=3.5)
    assert fit(tmp_path, lambda step: 99 - step / 10, rule).global_step == 40


def test_the_direction_is_asked_of_the_name(tmp_path):
    assert StopOnPlateau("val/is").mode == "max"
    assert StopOnPlateau("val/precision").mode == "max"
    with pytest.raises(ValueError, match="does not know which val/accuracy is better"):
        StopOnPlateau("val/accuracy")
    assert StopOnPlateau("val/fd_digits").mode == StopOnPlateau("balance/duality_gap").mode == "min"
    rule = StopOnPlateau("val/fid", mode="max", looks=2)
    assert fit(tmp_path, lambda step: -valley(step), rule).global_step == 120


def test_no_number_is_never_better(tmp_path):
    rule = StopOnPlateau("val/fid", looks=3)
    assert fit(tmp_path, lambda step: float("nan") if step > 50 else 60.0 - step, rule).global_step == 80
    assert rule.best_step == 50


def test_a_checkpoint_that_is_kept_already_is_not_kept_twice(tmp_path):
    keeper = ModelCheckpoint(tmp_path / "best", monitor="val/fid")
    rule = StopOnPlateau("val/fid", looks=2)
    fit(tmp_path, valley, rule, keeper, enable_checkpointing=True)
    assert rule.path is None
    assert not list(tmp_path.rglob("plateau-best.ckpt"))


def test_a_statistic_of_the_game(tmp_path):
    rule = StopOnPlateau("balance/order", mode="min", looks=3, every_n_steps=20, min_delta=2.0)
    assert fit(tmp_path, valley, BalanceReport(every_n_steps=20), rule).global_step == 80


def test_it_goes_on_counting_after_a_resume(tmp_path):
    rule = StopOnPlateau("val/fid", looks=4)
    run = fit(tmp_path, valley, rule, steps=120)
    run.save_checkpoint(tmp_path / "half.ckpt")
    rule = StopOnPlateau("val/fid", looks=4)
    rule.load_state_dict(torch.load(tmp_path / "half.ckpt", weights_only=True)["callbacks"][rule.state_key])
    assert (rule.best, rule.best_step, rule.worse) == (1.0, 100, 2)


def test_a_metric_that_nobody_logs(tmp_path):
    with pytest.raises(ValueError, match="monitors 'val/fd', which nobody logs: did you mean val/fid"):
        fit(tmp_path, valley, StopOnPlateau("val/fd", mode="min"))
    with pytest.raises(ValueError, match="list this callback after the one that logs it"):
        fit(tmp_path, valley, StopOnPlateau("balance/order", "min", every_n_steps=20), BalanceReport(every_n_steps=20))


@pytest.mark.parametrize(
    "arguments", [{"mode": "up"}, {"looks": 0}, {"patience": -1}, {"min_delta": -0.1}, {"every_n_steps": 0}]
)
def test_arguments_out_of_range(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        StopOnPlateau("val/fid", **arguments)

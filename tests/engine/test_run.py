"""Runs whose length is given in optimizer steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pointmix.engine.run import build_run
from pointmix.engine.states import FOLDER, load_state
from pointmix.engine.train import build_accelerator, train
from pointmix.tasks.config import OptimConfig, as_plain, changed_key

pytestmark = pytest.mark.usefixtures("no_pictures")


def test_the_schedule_ends_with_the_steps(tiny_config):
    cfg = tiny_config(steps=10, optim={"min_lr": 1e-5, "lr": 0.01, "sched_on_updates": False}, log_every=1)
    metrics = train(cfg)
    assert metrics["steps"] == 10 and metrics["epochs"] == pytest.approx(10 / 7)
    assert [entry["step"] for entry in metrics["history"]] == [7, 10]
    rates = [lr for _, _, lr in load_state(f"{cfg.output_dir}/{FOLDER}")[0]["train_state"]["curve"]]
    assert rates[:6] == sorted(rates[:6])  # warm-up is one epoch of 7 steps, then comes the cosine
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] == pytest.approx(1e-5, rel=1e-3)


def test_poly_falls_by_its_power(tiny_config):
    optim = {"sched": "poly", "power": 0.5, "warmup_epochs": 0, "min_lr": 0.0, "lr": 1.0, "lr_scale": "none"}
    cfg = tiny_config(optim=optim, steps=20)
    run = build_run(cfg, Path(cfg.output_dir), build_accelerator(cfg))
    for step in (0, 5, 16, 19):
        run.scheduler.step_update(step)
        assert run.lr == pytest.approx((1 - step / 20) ** 0.5)


@pytest.mark.parametrize("on_updates", [True, False])
def test_multistep_falls_after_its_milestones(tiny_config, on_updates):
    optim = {"sched": "multistep", "milestones": (2, 3), "decay_rate": 0.2, "warmup_epochs": 0, "lr": 1.0}
    cfg = tiny_config(optim=optim | {"lr_scale": "none", "sched_on_updates": on_updates}, epochs=4)
    run = build_run(cfg, Path(cfg.output_dir), build_accelerator(cfg))
    rates = []
    for step in range(4 * 7):  # as the loop does
        rates.append(run.lr)
        run.scheduler.step_update(step + 1)
        if step % 7 == 6:
            run.scheduler.step(step // 7 + 1)
    assert rates == pytest.approx(14 * [1.0] + 7 * [0.2] + 7 * [0.04])


def test_warm_up_in_steps_is_linear(tiny_config):
    optim = {"warmup_epochs": None, "warmup_steps": 10, "warmup_lr": 0.001, "lr": 1.0, "lr_scale": "none"}
    cfg = tiny_config(optim=optim | {"sched": "multistep", "milestones": (2,)})
    run = build_run(cfg, Path(cfg.output_dir), build_accelerator(cfg))
    for step in range(13):
        assert run.lr == pytest.approx(min(0.001 + 0.999 * step / 10, 1.0))
        run.scheduler.step_update(step + 1)
    with pytest.raises(ValueError, match="expected more than the 1.43 of optim.warmup_steps"):
        train(tiny_config(optim=optim, steps=10))


def test_cool_down_is_inside_the_steps(tiny_config):
    cfg = tiny_config(steps=21, optim={"min_lr": 1e-5, "lr": 0.01, "cooldown_epochs": 1}, log_every=1)
    assert train(cfg)["steps"] == 21
    rates = [lr for _, _, lr in load_state(f"{cfg.output_dir}/{FOLDER}")[0]["train_state"]["curve"]]
    assert rates[-8:] == pytest.approx([1e-5] * 8) and rates[-9] > 2e-5


def test_a_run_in_steps_goes_on_where_it_stopped(tiny_config, tmp_path):
    whole = tiny_config(steps=10)
    parts = tiny_config(steps=10, output_dir=str(tmp_path / "parts"), max_steps=4)
    train(whole)
    train(parts)
    train(tiny_config(steps=10, output_dir=str(tmp_path / "parts")))
    a, b = (load_state(f"{cfg.output_dir}/{FOLDER}")[0]["model"] for cfg in (whole, parts))
    assert all(torch.equal(a[key], b[key]) for key in a)
    with pytest.raises(ValueError, match="steps was 10 and is now 12"):
        train(tiny_config(steps=12))


def test_the_loss_curve_ends_with_the_run(tiny_config):
    cfg = tiny_config(steps=10, log_every=4)
    train(cfg)
    state = load_state(f"{cfg.output_dir}/{FOLDER}")[0]["train_state"]
    assert [step for step, _, _ in state["curve"]] == [4, 8, 10]


def test_too_few_steps_are_told(tiny_config):
    with pytest.raises(ValueError, match="steps 7 are 1 epochs; expected more than the 1 of optim.warmup_epochs"):
        train(tiny_config(steps=7))
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        tiny_config(steps=0)


def test_by_default_the_warm_up_moves_within_its_first_epoch(tiny_config):
    default = {"sched_on_updates": OptimConfig().sched_on_updates, "warmup_epochs": OptimConfig().warmup_epochs}
    metrics = train(tiny_config(optim=default, epochs=20, max_steps=6, log_every=1))
    assert metrics["steps"] == 6
    rates = [lr for _, _, lr in load_state(f"{tiny_config().output_dir}/{FOLDER}")[0]["train_state"]["curve"]]
    assert rates == sorted(rates) and len(set(rates)) == 6  # an epoch has 7 steps


@pytest.mark.parametrize("length, warmup", [({"epochs": 3}, 0.6), ({"steps": 14}, 0.4), ({"epochs": 300}, 5)])
def test_the_default_warm_up_is_at_most_a_fifth_of_the_run(tiny_config, capsys, length, warmup):
    train(tiny_config(optim={"warmup_epochs": None, "lr_scale": "none"}, max_steps=5, log_every=1, **length))
    rates = [lr for _, _, lr in load_state(f"{tiny_config().output_dir}/{FOLDER}")[0]["train_state"]["curve"]]
    assert (rates == sorted(rates)) == (warmup > 5 / 7)  # else the cosine has begun
    told = capsys.readouterr()
    assert f"schedule: cosine after {warmup:g} epochs of warm-up | length: " in told.out and not told.err


def test_a_run_that_is_all_warm_up_is_told(tiny_config):
    with pytest.warns(UserWarning, match="^all of the run is warm-up: epochs is 1 and optim.warmup_epochs 1, expected"):
        train(tiny_config(epochs=1, max_steps=1))


def test_what_the_schedule_passes_over_is_told(tiny_config):
    cfg = tiny_config(optim={"sched": "none", "warmup_epochs": 9, "cooldown_epochs": 9}, steps=3)
    with pytest.warns(UserWarning, match="^optim.(warmup|cooldown)_epochs 9 is not used: ") as told:
        assert train(cfg)["steps"] == 3
    assert len({str(w.message) for w in told if "is not used" in str(w.message)}) == 2


def weights(cfg):
    return load_state(f"{cfg.output_dir}/{FOLDER}")[0]["model"]


@pytest.mark.parametrize(
    "optim, short, long",
    [
        ({"sched": "none", "warmup_epochs": 1}, {"epochs": 1}, {"epochs": 2}),
        ({"sched": "none", "warmup_epochs": None}, {"steps": 8}, {"steps": 11}),
        ({"sched": "step", "warmup_epochs": 1}, {"epochs": 1}, {"epochs": 2}),
        (
            {"sched": "multistep", "milestones": (1,), "warmup_epochs": None, "warmup_steps": 2},
            {"epochs": 1},
            {"epochs": 2},
        ),
        ({"sched": "cosine", "cooldown_epochs": 0, "warmup_epochs": 0}, {"epochs": 1}, {"cooldown_epochs": 1}),
    ],
)
def test_a_finished_run_is_made_longer_where_its_schedule_allows_it(tiny_config, tmp_path, optim, short, long):
    def longer(**more):
        cooldown = {k: v for k, v in long.items() if k == "cooldown_epochs"}
        top = {k: v for k, v in long.items() if k not in cooldown}
        return tiny_config(optim=optim | cooldown, **{**short, **top, **more})

    assert train(tiny_config(optim=optim, **short))["steps"] in (7, 8)
    metrics = train(longer())
    assert metrics["steps"] in (14, 11) and metrics["history"][-1]["step"] == metrics["steps"]
    straight = longer(output_dir=str(tmp_path / "straight"))
    train(straight)
    assert all(torch.equal(a, b) for a, b in zip(*(weights(cfg).values() for cfg in (longer(), straight)), strict=True))
    assert train(longer()) == metrics  # finished now
    what = r"(epochs|steps) was \d+ and is now \d+ \(it can only grow\)|cooldown_epochs was 1 and is now 0"
    with pytest.raises(ValueError, match=f"is of another configuration: (optim.)?({what}); give another --output_dir"):
        train(tiny_config(optim=optim, **short))  # shorter again


def test_a_schedule_that_ends_says_how_to_go_on(tiny_config):
    train(tiny_config(epochs=1))
    message = r"epochs was 1 and is now 2 \(the cosine schedule depends on it; a larger optim.cooldown_epochs makes the"
    with pytest.raises(ValueError, match=message):
        train(tiny_config(epochs=2))
    step = {"optim": {"sched": "step", "warmup_epochs": None}}
    changed = changed_key(as_plain(tiny_config(epochs=1, **step)), tiny_config(epochs=2, **step))
    assert changed == "epochs was 1 and is now 2 (the default warm-up depends on it)"
    with pytest.raises(ValueError, match=r"steps was None and is now 20 \(the cosine schedule depends on it\); give"):
        train(tiny_config(epochs=1, steps=20))

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from timm.scheduler import create_scheduler_v2

from pointmix.data.clouds.resolve import resolve
from pointmix.data.clouds.sources import shapes
from pointmix.engine import flags
from pointmix.engine.signals import Stopped
from pointmix.tasks.base import get_task
from pointmix.tasks.classify_points import ClassifyPointsConfig
from pointmix.tasks.config import as_plain

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs" / "points").glob("*.yaml"))


def parse(argv):
    return flags.parse(argv, ClassifyPointsConfig)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_points", ROOT / "scripts" / "train_points.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_short_runs_on_the_default_data(script, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shapes, "COUNTS", {"training": 96, "test": 24})
    monkeypatch.setattr("pointmix.explain.clouds.draw_clouds", lambda *args, **kwargs: None)
    argv = [f"--output_dir={tmp_path}/run", "--epochs=1", "--optim.warmup_epochs=0", f"--data.root={tmp_path}"]
    argv += ["--data.source=shapes", "--data.points=64", "--seeds", "1", "2"]
    assert script.main(argv) == 0
    metrics = json.loads((tmp_path / "run" / "seeds.json").read_text())
    assert metrics["data"] == "shapes" and len(metrics["test"]["oa"]["values"]) == 2
    assert {"seed1", "seed2"} <= {folder.name for folder in (tmp_path / "run").iterdir()}
    assert (tmp_path / "run" / "seed1" / "confusion.png").exists()
    capsys.readouterr()
    assert script.main(argv) == 0
    assert capsys.readouterr().out.count("is finished") == 2


@pytest.mark.parametrize(
    "argv, names",
    [
        (["--nonsense=1"], "nonsense"),
        (["--config=nowhere.yaml"], "nowhere.yaml"),
        (["--data.source=scanobjectnn"], "data.root is not set"),
        (["--data.source=scanobjectnn", "--data.root=/no/such/folder"], "/no/such/folder"),
        (["--seeds", "1", "one"], "seeds"),
        (["--mix.smoothing=x"], "smoothing"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(script, tmp_path, capsys, argv, names):
    assert script.main([*argv, f"--output_dir={tmp_path}/run"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and names in error
    assert not (tmp_path / "run").exists()


def test_a_signal_is_told_in_one_line(script, monkeypatch, capsys):
    def ended(cfg, recipe):
        raise Stopped(15, "stopped by SIGTERM at step 3")

    monkeypatch.setattr("pointmix.engine.seeds.train_all", ended)
    assert script.main([]) == 128 + 15
    assert capsys.readouterr().err == "stopped by SIGTERM at step 3\n"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_recipes_parse_and_say_command_cost_and_result(path):
    cfg = parse([f"--config={path}", *(["--data.root=DIR"] if "DIR" in path.read_text() else [])])
    assert cfg.name == path.stem
    task, info = get_task("classify_points"), {"name": cfg.model.name, "kwargs": cfg.model.kwargs, "in_chans": 0}
    info |= {"classes": [str(label) for label in range(15)], "data": as_plain(cfg.data)}
    model = task.build_model(info)
    assert sum(p.numel() for p in model.parameters()) > 5e4
    task.check_model(model, cfg, info)
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# pointmix train points")
    assert f"--config points/{path.stem}" in lines[0] or lines[0] == "# pointmix train points"
    assert lines[1].startswith("# Cost: ") and lines[2].startswith("# Result: ")


@pytest.mark.parametrize(
    "recipe, lr, min_lr, decay, epochs",
    [
        ("pointmlp_coc_scanobjectnn", 0.01, 1e-4, 1e-4, 250),
        ("pointmlp_elite_scanobjectnn", 0.01, 1e-4, 1e-4, 200),
        ("pointmlp_modelnet40", 0.1, 0.005, 2e-4, 300),
    ],
)
def test_authors_recipes(recipe, lr, min_lr, decay, epochs):
    cfg = parse([f"--config={ROOT}/configs/points/{recipe}.yaml", "--data.root=DIR"])
    optim, data = cfg.optim, cfg.data
    assert cfg.model.name == recipe.rpartition("_")[0] and cfg.model.kwargs == {"order": "given"}
    assert (optim.opt, optim.lr, optim.lr_base_batch, optim.weight_decay) == ("momentum", lr, 32, decay)
    assert (optim.decay_all, optim.sched, optim.sched_on_updates, optim.warmup_epochs) == (True, "cosine", False, 0)
    assert (optim.min_lr, optim.cooldown_epochs, optim.ema_decay, optim.clip_grad) == (min_lr, 0, None, None)
    assert (cfg.epochs, cfg.batch_size, cfg.grad_accum_steps, cfg.mix.smoothing) == (epochs, 32, 1, 0.2)
    data = resolve(data)
    assert (data.points, data.sampling, data.normalize, data.shuffle) == (1024, "first", "none", True)
    assert (data.scale, data.scale_per_axis, data.translate) == ((2 / 3, 3 / 2), True, 0.2)
    assert (data.rotate, data.jitter, data.dropout_ratio, data.val_fraction) == (0, 0, 0, 0)


def test_authors_learning_rate_is_cosine_from_epoch_to_epoch(tmp_path):
    """As torch's CosineAnnealingLR(T_max=epochs, eta_min=lr / 100) has it."""

    optim = parse([f"--config={ROOT}/configs/points/pointmlp_coc_scanobjectnn.yaml", "--data.root=DIR"]).optim
    parameters = [[torch.nn.Parameter(torch.zeros(2))] for _ in range(2)]
    ours, theirs = (torch.optim.SGD(p, lr=optim.lr) for p in parameters)
    schedule, epochs = create_scheduler_v2(
        ours, sched=optim.sched, num_epochs=250, warmup_epochs=0, min_lr=optim.min_lr, cooldown_epochs=0
    )
    expected = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, T_max=250, eta_min=optim.lr / 100)
    assert epochs == 250
    for epoch in range(1, 251):
        theirs.step()
        schedule.step(epoch)
        expected.step()
        if epoch < 250:
            assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-9)


def test_voting_and_clouds_of_the_modern_recipe():
    cfg = parse([f"--config={ROOT}/configs/points/pointmlp_coc_modern.yaml", "--data.root=DIR", "--votes=10"])
    assert (cfg.optim.opt, cfg.epochs, cfg.mix.smoothing, cfg.data.rotate) == ("adamw", 250, 0.2, 180)
    voting = get_task("classify_points").more_tests(cfg, torch.nn.Identity())["10 votes"]
    assert (voting.votes, voting.low, voting.high) == (10, 0.8, 1.25)

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path

import pytest
import torch
import yaml

import pointmix
from pointmix.commands import ablate
from pointmix.engine import finish, jobs
from pointmix.engine.flags import parse
from pointmix.engine.seeds import train_all
from pointmix.tasks.classify_images import ClassifyImagesConfig

ROOT = Path(__file__).parents[2]
TINY = dict(
    stem=[3, 2, 1],
    depths=[1, 1],
    dims=[16, 24],
    mlp_ratios=[2, 2],
    heads=2,
    head_dim=8,
    windows_per_side=[2, 1],
    centers_per_side=[2, 2],
)


@pytest.fixture
def recipe(tmp_path):
    """Writes a YAML of a short run on a few digits."""

    def write(name, top=(), **kwargs):
        model = {"name": "coc_tiny", "kwargs": TINY | kwargs}
        found = {"model": model, "data": {"limit": 64}, "batch_size": 16, "epochs": 2, "threads": 1} | dict(top)
        found["optim"] = {"warmup_epochs": 0.5, "sched_on_updates": True}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(found))
        return str(path)

    return write


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr(finish, "_draw", lambda picture, path: None)


@pytest.fixture
def in_process(monkeypatch):
    """Trainings in this process, which spares the start of others; gives the commands."""
    done = []

    def run_all(commands, logs, *, jobs):
        for key, command in commands.items():
            logs[key].parent.mkdir(parents=True, exist_ok=True)
            done.append(command)
            try:
                if any(arg.startswith("--measure=") for arg in command):
                    ablate.ablate(command[4:])
                else:
                    train_all(parse(command[5:], ClassifyImagesConfig))
            except ValueError as e:
                logs[key].write_text(f"some line\nerror: {e}\n")
                yield key, 2
            else:
                yield key, 0

    monkeypatch.setattr(jobs, "run_all", run_all)
    return done


def test_a_recipe_as_a_process_and_a_table(recipe, tmp_path, capsys):
    argv = [recipe("narrow"), "--seeds", "1", f"--out={tmp_path}/out"]
    argv += ["--epochs", "1"]  # goes to the training
    assert ablate.main(argv) == 0
    out = tmp_path / "out"
    [row] = json.loads((out / "ablation.json").read_text())["rows"]
    assert row["recipe"] == "narrow" and row["epochs"] == 1
    metrics = json.loads((out / "narrow" / "seed1" / "metrics.json").read_text())
    assert row["mean"] == metrics["test"]["top1"] and row["std"] is None
    assert row["parameters"] == metrics["parameters"]
    assert "narrow, seed 1" in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in out.rglob("metrics.json")}
    assert ablate.main(argv) == 0
    assert "0 trainings, 1 finished before" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("metrics.json")}


@pytest.mark.usefixtures("no_pictures")
def test_mean_and_deviation_over_seeds_in_every_file(recipe, tmp_path, capsys, in_process):
    argv = [recipe("only"), "--seeds", "4", "5", "6", f"--out={tmp_path}/out", "--max_steps=2"]
    assert ablate.main(argv) == 0
    out = tmp_path / "out"
    tests = [json.loads((out / "only" / f"seed{s}" / "metrics.json").read_text())["test"]["top1"] for s in (4, 5, 6)]
    row = json.loads((out / "ablation.json").read_text())["rows"][0]
    assert row["values"] == tests and row["mean"] == pytest.approx(statistics.fmean(tests))
    assert row["std"] == pytest.approx(statistics.stdev(tests))
    assert 0 < row["macs_linear"] < row["macs_multiplied"] < 1e6 and row["samples_per_second"] > 0
    with (out / "ablation.csv").open() as file:
        assert next(csv.DictReader(file))["mean"] == str(row["mean"])
    lines = (out / "ablation.md").read_text().splitlines()
    assert lines[0].startswith("| recipe | model | test top-1 (%), mean | deviation | seeds |")
    assert lines[2].startswith(f"| only | coc_tiny | {100 * row['mean']:.2f} | {100 * row['std']:.2f} | 3 | 9,")
    assert "--max_steps=2" in lines[4]
    more = [*argv[:2], "4", "5", "6", "7", *argv[5:]]
    in_process.clear()
    assert ablate.main(more) == 0
    assert len(in_process) == 1 and "--seed=7" in in_process[0]


@pytest.mark.usefixtures("no_pictures")
def test_a_failed_run_is_told_and_the_rest_go_on(recipe, tmp_path, capsys, in_process):
    argv = [recipe("bad", nonsense=1), recipe("good"), "--seeds=1", f"--out={tmp_path}/out", "--max_steps=1"]
    assert ablate.main(argv) == 1
    err = capsys.readouterr().err
    assert "failed: bad, seed 1: error: cannot create model" in err and "seed1.log" in err
    bad, good = json.loads((tmp_path / "out" / "ablation.json").read_text())["rows"]
    assert bad["missing"] == [1] and "mean" not in bad and good["seeds"] == [1]
    assert "| bad | coc_tiny |  |  | 0 of 1 |" in (tmp_path / "out" / "ablation.md").read_text()


@pytest.mark.usefixtures("no_pictures")
def test_equal_time_fits_the_steps_to_the_speed(recipe, tmp_path, monkeypatch, capsys, in_process):
    speeds = {"coc_tiny": iter([1.0, 1.5])}
    monkeypatch.setattr("pointmix.engine.speed.seconds_per_step", lambda cfg: next(speeds[cfg.model.name]))
    argv = [recipe("fast"), recipe("slow", dims=[16, 32]), "--seeds", "1", "--minutes", "0.1", f"--out={tmp_path}/out"]
    assert ablate.main(argv) == 0
    rows = json.loads((tmp_path / "out" / "ablation.json").read_text())["rows"]
    assert [(row["steps"], row["minutes"]) for row in rows] == [(6, 0.1), (4, 0.1)]
    (tmp_path / "out" / "fast" / "speed0.json").write_text("{")  # damaged: measured again
    speeds["coc_tiny"] = iter([1.0])
    argv[3:4] = ["1", "2"]
    assert ablate.main(argv) == 0  # with the speeds it has
    assert "2 trainings, 2 finished before" in capsys.readouterr().out
    argv[argv.index("0.1")] = "0.2"
    assert ablate.main(argv) == 2
    why = "steps was 6 and is now 12 (the cosine schedule depends on it); give another --out, or remove that folder"
    assert why in capsys.readouterr().err


@pytest.mark.usefixtures("no_pictures")
def test_as_many_at_a_time_are_measured_as_train(recipe, tmp_path, monkeypatch, in_process):
    speeds = iter([1.0, 2.0, 3.0])
    monkeypatch.setattr("pointmix.engine.speed.seconds_per_step", lambda cfg: next(speeds))
    out = tmp_path / "out"
    argv = [recipe("some"), "--seeds", "1", "--minutes", "0.1", f"--out={out}"]
    assert ablate.main([*argv, "--jobs", "2"]) == 0
    assert [arg for command in in_process for arg in command if "--measure" in arg] == ["--measure=0", "--measure=1"]
    assert json.loads((out / "ablation.json").read_text())["rows"][0]["steps"] == 4  # 6 s by the mean of 1 and 2
    assert ablate.main(argv) == 2  # alone it is measured anew, and other steps are another run
    assert json.loads((out / "some" / "speed0.json").read_text())["seconds_per_step"] == 3.0


@pytest.mark.usefixtures("no_pictures")
def test_equal_recipes_train_once(recipe, tmp_path, in_process):
    argv = [recipe("one"), recipe("two"), recipe("other", heads=4), "--seeds=1", f"--out={tmp_path}/out"]
    assert ablate.main([*argv, "--max_steps=1"]) == 0 and len(in_process) == 2
    rows = json.loads((tmp_path / "out" / "ablation.json").read_text())["rows"]
    assert [row["recipe"] for row in rows] == ["one", "two (is one)", "other"]
    assert rows[0]["parameters"] == rows[1]["parameters"] < rows[2]["parameters"]


def test_a_change_needs_a_base(tmp_path, capsys):
    change = tmp_path / "row.yaml"
    change.write_text("model: {kwargs: {heads: 2}}")
    assert ablate.main([str(change)]) == 2
    assert "it is a change to a recipe; give that as --base" in capsys.readouterr().err
    change.write_text("model: [")
    assert ablate.main([str(change)]) == 2
    assert "row.yaml cannot be read as YAML" in capsys.readouterr().err


def test_a_speed_that_cannot_be_measured_fails_its_recipe_alone(recipe, tmp_path, capsys, in_process):
    argv = [recipe("bad", nonsense=1), "--seeds=1", "--minutes=1", f"--out={tmp_path}/out"]
    assert ablate.main(argv) == 1
    assert "failed: speed of bad: error: cannot create model" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv, names",
    [
        ([], "no recipe"),
        (["--seeds", "1"], "no recipe"),
        (["nowhere.yaml"], "no configuration file 'nowhere.yaml'"),
        (["RECIPE", "--seeds", "1", "1"], "different"),
        (["RECIPE", "--seeds", "one"], "one"),
        (["RECIPE", "--jobs=0"], "--jobs"),
        (["RECIPE", "--minutes=-1"], "--minutes"),
        (["RECIPE", "--seed=3"], "--seed is set for each training"),
        (["RECIPE", "--output_dir=x"], "--output_dir is set for each training"),
        (["RECIPE", "--task=nothing"], "no task 'nothing' is registered"),
        (["RECIPE", "--nonsense=3"], "nonsense"),
        (["RECIPE", "--minutes=1", "--steps=4"], "has its own steps"),
        (["RECIPE", "RECIPE"], "two recipes are called some"),
    ],
)
def test_errors_are_one_line_and_nothing_runs(recipe, tmp_path, capsys, argv, names):
    path = recipe("some")
    argv = [path if arg == "RECIPE" else arg for arg in argv]
    assert ablate.main([*argv, f"--out={tmp_path}/out"]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and error[0].startswith("error: ") and names in error[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag, names", [("--nonsense=3", "nonsense"), ("--steps=4", "narrow has its own steps")])
def test_a_change_to_a_base_is_written_once_all_flags_are_known(
    recipe, tmp_path, capsys, in_process, monkeypatch, flag, names
):
    change, out = tmp_path / "narrow.yaml", tmp_path / "out"
    change.write_text("model: {kwargs: {head_dim: 4}}")
    argv = [str(change), "--base", recipe("base"), "--seeds=1", "--minutes=0.01", f"--out={out}"]
    assert ablate.main([*argv, flag]) == 2 and names in capsys.readouterr().err
    assert not out.exists()
    monkeypatch.setattr("pointmix.engine.speed.seconds_per_step", lambda cfg: 1.0)
    monkeypatch.setattr("pointmix.engine.seeds.train", lambda cfg, recipe: {})
    assert ablate.main(argv) == 1  # as nothing was trained
    found = yaml.safe_load((out / "narrow.yaml").read_text())
    assert found["name"] == "narrow" and found["model"]["kwargs"]["head_dim"] == 4
    assert [f"--config={out}/narrow.yaml" in command for command in in_process] == [False, True]  # the first measures


def test_changes_to_a_base(recipe, tmp_path):
    base, whole = recipe("base"), recipe("whole", heads=4)
    change = tmp_path / "narrow.yaml"
    change.write_text("# a row\nmodel:\n  kwargs: {head_dim: 4}\n")
    args, recipes = ablate.parse([str(change), whole, "--base", base, "--out", str(tmp_path / "out"), "--threads=1"])
    assert [r.name for r in recipes] == ["narrow", "whole"] and str(recipes[1].file) == whole
    narrow, original = recipes[0].config(), ablate.Recipe(Path(base), (), tmp_path).config()
    assert narrow.model.kwargs == original.model.kwargs | {"head_dim": 4} and narrow.model.name == "coc_tiny"
    assert narrow.data == original.data and narrow.optim == original.optim and narrow.name == "narrow"
    change.write_text("- 1\n")
    with pytest.raises(ValueError, match="narrow.yaml holds no keys"):
        ablate.parse([str(change), "--base", base])
    with pytest.raises(FileNotFoundError, match="no configuration file 'missing.yaml'"):
        ablate.parse([whole, "--base", "missing.yaml"])


@pytest.mark.parametrize("path", sorted((ROOT / "configs/ablations").glob("*.yaml")), ids=lambda p: p.stem)
@pytest.mark.parametrize("base", ["configs/image/hcformer_tiny_in1k.yaml", "configs/ablations/cifar10/hcformer.yaml"])
def test_rows_of_the_paper_fit_their_bases(path, base, tmp_path):
    _, [row] = ablate.parse([str(path), "--base", str(ROOT / base), "--out", str(tmp_path)])
    cfg = row.config()
    change = yaml.safe_load(path.read_text())["model"]["kwargs"]
    assert change.items() <= cfg.model.kwargs.items() and cfg.model.name == "hcformer_tiny"
    with torch.device("meta"):
        model = pointmix.create_model(cfg.model.name, num_classes=10, **cfg.model.kwargs)
    assert sum(p.numel() for p in model.parameters()) > 5e5
    assert "not measured by us" in path.read_text()


def test_a_change_is_not_overwritten_by_what_it_comes_to(recipe, tmp_path):
    change = tmp_path / "out" / "wide.yaml"
    change.parent.mkdir()
    change.write_text("model:\n  kwargs:\n    dims: [16, 32]\n")
    before = change.read_text()
    with pytest.raises(ValueError, match="wide.yaml would be overwritten by what it comes to with --base"):
        ablate.parse([str(change), f"--base={recipe('narrow')}", f"--out={tmp_path}/out"])
    assert change.read_text() == before

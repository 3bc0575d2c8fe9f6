from __future__ import annotations

import importlib.util
import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from pointmix.engine import flags
from pointmix.engine.signals import Stopped
from pointmix.tasks.base import get_task
from pointmix.tasks.classify_images import ClassifyImagesConfig, MixConfig
from pointmix.tasks.config import OptimConfig, as_plain

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted([*(ROOT / "configs/image").glob("*.yaml"), *(ROOT / "configs/ablations/cifar10").glob("*.yaml")])


def parse(argv):
    return flags.parse(argv, ClassifyImagesConfig)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_image", ROOT / "scripts" / "train_image.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_short_run_on_the_default_data(script, tmp_path, capsys):
    argv = [f"--output_dir={tmp_path}/run", "--epochs=1", "--optim.warmup_epochs=0", "--data.limit=128"]
    assert script.main(argv) == 0
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["data"] == "digits"
    first, second = capsys.readouterr().out.splitlines()[:2]
    for part in ("image/coc_digits | model: coc_tiny, 639,536 parameters | data: digits, 10 classes", "128 to train"):
        assert part in first
    for part in ("adamw, learning rate 0.003 at a total batch of 64", "1 epochs of 2 steps", f"{tmp_path}/run"):
        assert part in second
    assert script.main(argv) == 0
    assert "is finished" in capsys.readouterr().out


@pytest.fixture
def photographs(tmp_path):
    """Two classes of four noisy pictures, to train and to test."""
    generator = np.random.default_rng(0)
    for split, name in product(("train", "test"), ("cat", "dog")):
        (tmp_path / "pets" / split / name).mkdir(parents=True)
        for i in range(4):
            pixels = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / split / name / f"{i}.png")
    return tmp_path / "pets"


def test_photographs_are_not_trained_with_the_digits_recipe(script, photographs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--data.root=pets", "--data.img_size=32", "--batch_size=2", "--max_steps=1", "--threads=1"]
    assert script.main([*flags, "--model.name=coc_tiny"]) == 0
    out = capsys.readouterr().out
    assert "recipe: defaults of train_image.py (data.source folder, as data.root is given)" in out
    assert "model: coc_tiny, 5,2" in out and "data: pets, 2 classes" in out
    metrics = json.loads((tmp_path / "runs" / "coc_tiny-pets" / "metrics.json").read_text())
    assert metrics["parameters"] > 5e6 and metrics["steps"] == 1
    config = yaml.safe_load((tmp_path / "runs" / "coc_tiny-pets" / "config.yaml").read_text())
    assert (config["optim"], config["mix"], config["threads"]) == (as_plain(OptimConfig()), as_plain(MixConfig()), 1)


@pytest.mark.parametrize(
    "argv, names",
    [
        (["--nonsense=1"], "nonsense"),
        (["--config=nowhere.yaml"], "nowhere.yaml"),
        (["--model.name=coc_huge"], "coc_huge"),
        (["--data.source=folder", "--data.root=/no/such/folder"], "/no/such/folder"),
        (["--data.root=images", "--model.name=resnet18"], "no folder images; expected one with train/CLASS"),
        (["--data.root=images", "--data.source=digits"], "data.root images: data.source is digits"),
        (["--batch_size=4000"], "4000"),
        (['--model.kwargs={"heads": 0}'], "model coc_tiny: heads must be at least 1, got 0"),
        (["--optim.clip_grad=-1"], "optim.clip_grad must be above 0, got -1.0"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(script, tmp_path, capsys, argv, names):
    assert script.main([*argv, f"--output_dir={tmp_path}/run"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and names in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("out", ["file", "file/run"])
def test_a_run_folder_that_is_a_file(script, tmp_path, capsys, out):
    (tmp_path / "file").write_text("mine")
    assert script.main([f"--output_dir={tmp_path / out}"]) == 2
    error = capsys.readouterr().err
    assert (
        error
        == f"error: the run folder is {tmp_path / out}, but {tmp_path}/file is a file; give another --output_dir\n"
    )
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "error, code, line",
    [
        (Stopped(15, "stopped by SIGTERM at step 3"), 128 + 15, "stopped by SIGTERM at step 3"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ImportError("pip install datasets"), 2, "error: pip install datasets"),
    ],
)
def test_whatever_ends_it_is_told_in_one_line(script, monkeypatch, capsys, error, code, line):
    def ended(cfg, recipe):
        raise error

    monkeypatch.setattr("pointmix.engine.seeds.train_all", ended)
    assert script.main([]) == code
    assert capsys.readouterr().err == line + "\n"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_recipes_parse_and_say_command_cost_and_result(path):
    cfg = parse([f"--config={path}"])
    info = {"name": cfg.model.name, "kwargs": cfg.model.kwargs, "classes": list("abcdefghij"), "img_size": 224}
    model = get_task("classify_images").build_model(info | {"in_chans": cfg.data.in_chans or 3})
    assert sum(p.numel() for p in model.parameters()) > 1e5
    lines = path.read_text().splitlines()
    if path.parent.name == "cifar10":
        assert lines[0].startswith("# pointmix ablate 'ablations/cifar10/*'")
    else:
        assert lines[0].startswith("# ") and "pointmix train image" in lines[0]
        assert f"--config image/{path.stem}" in lines[0] or lines[0] == "# pointmix train image"
    assert lines[1].startswith("# Cost: ") and lines[2].startswith("# Result: ")


# models, and the published number of GPUs and images on each
IMAGENET = {
    "coc": (("tiny", "small", "medium"), 8, 128),
    "fec": (("small", "base", "large"), 4, 256),
    "hcformer": (("nano", "tiny", "small", "medium"), 4, 256),
}


@pytest.mark.parametrize("name", [f"{family}_{size}" for family, (sizes, *_) in IMAGENET.items() for size in sizes])
def test_imagenet_recipe_is_the_published_one(name):
    path = ROOT / f"configs/image/{name}_in1k.yaml"
    cfg, (_, gpus, batch_size) = parse([f"--config={path}"]), IMAGENET[name.split("_")[0]]
    optim, mix, data = cfg.optim, cfg.mix, cfg.data
    assert f"--nproc_per_node {gpus} " in path.read_text() and gpus * batch_size == optim.lr_base_batch
    assert cfg.model.name == name and cfg.model.kwargs == {"drop_path_rate": 0.1}
    assert (optim.opt, optim.lr, optim.lr_base_batch, optim.weight_decay) == ("adamw", 1e-3, 1024, 0.05)
    assert (optim.betas, optim.clip_grad, optim.ema_decay) == ((0.9, 0.999), None, None)
    assert (optim.sched, optim.sched_on_updates, optim.warmup_epochs, optim.warmup_lr) == ("cosine", False, 5, 1e-6)
    assert (optim.min_lr, optim.cooldown_epochs, cfg.epochs) == (1e-6, 10, 300)
    assert (mix.mixup, mix.cutmix, mix.switch_prob, mix.smoothing) == (0.8, 1.0, 0.5, 0.1)
    assert (data.auto_augment, data.reprob, data.remode) == ("rand-m9-mstd0.5-inc1", 0.25, "pixel")
    assert (data.scale, data.ratio, data.hflip, data.color_jitter) == ((0.08, 1.0), (3 / 4, 4 / 3), 0.5, 0.4)
    assert (data.img_size, data.crop_pct) == (224, 0.9)
    assert data.test_split is None  # folders call it val, Hugging Face validation
    assert (data.interpolation, data.train_interpolation) == ("bicubic", "random")
    assert (cfg.batch_size, cfg.grad_accum_steps, cfg.precision, cfg.seed) == (batch_size, 1, "fp16", 42)


@pytest.mark.parametrize("family", IMAGENET)
def test_three_imagenet_recipes_differ_only_in_the_model(family):
    files = [ROOT / f"configs/image/{family}_{size}_in1k.yaml" for size in IMAGENET[family][0]]
    recipes = [yaml.safe_load(file.read_text()) for file in files]
    for recipe in recipes:
        assert recipe.pop("name").startswith(recipe["model"].pop("name"))
    assert recipes[0] == recipes[1] == recipes[2]

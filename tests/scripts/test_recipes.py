"""The learning rates that recipes come to: a change of the defaults must not move them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pointmix.engine.flags import parse
from pointmix.tasks.classify_images import ClassifyImagesConfig
from pointmix.tasks.classify_points import ClassifyPointsConfig

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
# optimizer, learning rate at a total batch, epochs of warm-up, cool-down and schedule, whether it moves at every step
IN1K = ("adamw", 1e-3, 1024, 5, 10, 300, False)
CIFAR = ("nmuon", 0.006, 128, 1, 0, 8, True)
MINI = ("nmuon", 0.006, 128, 0.3, 0, 4, True)
RECIPES = {
    **{f"image/coc_{size}_in1k": IN1K for size in ("tiny", "small", "medium")},
    **{f"image/fec_{size}_in1k": IN1K for size in ("small", "base", "large")},
    **{f"image/hcformer_{size}_in1k": IN1K for size in ("nano", "tiny", "small", "medium")},
    "image/coc_digits": ("adamw", 0.003, 64, 2, 0, 30, True),
    "image/coc_cifar10": CIFAR,
    "image/hcformer_cifar10": CIFAR,
    "image/coc_cifar10_partial": (*CIFAR[:5], 6, True),
    **{f"ablations/cifar10/{name}": MINI for name in ("coc", "fec", "hcformer")},
    "points/coc_shapes": ("nmuon", 0.06, 128, 1, 0, 13, True),
    "points/coc_tiny_small": ("nmuon", 0.03, 128, 10, 0, 250, True),
    "points/pointmlp_elite_small": ("nmuon", 0.02, 128, 6, 0, 60, True),
    "points/small": ("nmuon", 0.02, 128, 6, 0, 60, True),
    "points/pointmlp_coc_modern": ("adamw", 0.002, 32, 10, 0, 250, False),
    "points/pointmlp_coc_scanobjectnn": ("momentum", 0.01, 32, 0, 0, 250, False),
    "points/pointmlp_elite_scanobjectnn": ("momentum", 0.01, 32, 0, 0, 200, False),
    "points/pointmlp_modelnet40": ("momentum", 0.1, 32, 0, 0, 300, False),
}


def test_no_recipe_is_missing_here():
    files = [*CONFIGS.glob("image/*.yaml"), *CONFIGS.glob("points/*.yaml"), *CONFIGS.glob("ablations/cifar10/*.yaml")]
    assert {str(file.relative_to(CONFIGS).with_suffix("")) for file in files} == RECIPES.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_learning_rate_and_schedule(name):
    kind = ClassifyPointsConfig if name.startswith("points") else ClassifyImagesConfig
    cfg = parse([f"--config={CONFIGS}/{name}.yaml", "--data.root=DIR"][: 1 + (name != "image/coc_digits")], kind)
    optim = cfg.optim
    opt, lr, base, *schedule = RECIPES[name]
    for batch in (16, 128, 1024):
        assert optim.scaled_lr(batch) == pytest.approx(lr * batch / base, rel=1e-12)
    found = [optim.warmup_epochs, optim.cooldown_epochs, cfg.epochs, optim.sched_on_updates]
    assert (optim.opt, optim.sched, found) == (opt, "cosine", schedule)


def test_recipes_have_run_folders_of_their_own():
    """The same command resumes a run, so two recipes of one name would get in each other's way."""
    files = [file for file in CONFIGS.glob("*/*.yaml") if file.parent.name != "ablations"]
    names = [name for file in files if (name := yaml.safe_load(file.read_text()).get("name"))]
    assert len(names) > 10 and len(set(names)) == len(names)

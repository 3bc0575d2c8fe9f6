from __future__ import annotations

import dataclasses
import math
from dataclasses import fields
from typing import Annotated, get_args, get_origin

import pytest
import yaml

from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.images.config import DataConfig
from pointmix.engine.flags import parse
from pointmix.tasks.classification.config import ClassLossConfig
from pointmix.tasks.classify_images import ClassifyImagesConfig, MixConfig
from pointmix.tasks.classify_points import ClassifyPointsConfig, SmoothConfig
from pointmix.tasks.config import FREE_KEYS, ModelConfig, OptimConfig, RunConfig, as_plain, changed_key, run_folder
from pointmix.utils.ranges import hints, range_of


def test_plain_form_is_yaml_and_parses_back(tmp_path):
    cfg = ClassifyImagesConfig(model=ModelConfig("coc_tiny", {"dims": (1, 2)}), epochs=4, output_dir="x")
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(as_plain(cfg)))
    assert as_plain(parse([f"--config={file}"], ClassifyImagesConfig)) == as_plain(cfg)


@pytest.mark.parametrize("kind", [ClassifyImagesConfig, ClassifyPointsConfig])
def test_changed_key(kind):
    old, default = as_plain(kind()), kind()
    assert changed_key(old, default) is None
    free = dict(output_dir="b", restart=True, max_steps=3, log_every=7, save_every_steps=2, seeds=(1, 2))
    data = dataclasses.replace(default.data, workers=3)
    assert changed_key(old, dataclasses.replace(default, data=data, **free)) is None
    changed = dataclasses.replace(default, optim=OptimConfig(lr=0.5))
    assert changed_key(old, changed) == "optim.lr was 0.001 and is now 0.5"
    assert "epochs was" in changed_key(old, dataclasses.replace(default, epochs=2))
    kwargs = as_plain(dataclasses.replace(default, model=ModelConfig(kwargs={"a": 1})))
    assert changed_key(kwargs, default) == "model.kwargs was {'a': 1} and is now {}"


def test_keys_of_a_kind_of_data():
    mixed = ClassifyImagesConfig(mix=MixConfig(mixup=0.5))
    assert changed_key(as_plain(ClassifyImagesConfig()), mixed) == "mix.mixup was 0.0 and is now 0.5"
    assert changed_key(as_plain(ClassifyPointsConfig()), ClassifyPointsConfig(votes=3)) is None


def test_a_key_that_an_earlier_version_did_not_know_had_its_default():
    old = as_plain(ClassifyImagesConfig())
    for key in ("select", "seeds"):
        del old[key]
    del old["optim"]["decay_all"]
    assert changed_key(old, ClassifyImagesConfig()) is None
    assert changed_key(old, ClassifyImagesConfig(select="last")) == "select was 'val' and is now 'last'"
    old["gone"] = 3
    assert changed_key(old, ClassifyImagesConfig()) == "gone was 3 and is now None"


def test_learning_rate_follows_the_total_batch():
    for scale, lr in (("sqrt", 5e-4), ("linear", 2.5e-4), ("none", 1e-3)):
        assert OptimConfig(lr=1e-3, lr_base_batch=1024, lr_scale=scale).scaled_lr(256) == pytest.approx(lr, rel=1e-12)


@pytest.mark.parametrize("kind", [ClassifyImagesConfig, ClassifyPointsConfig])
def test_free_keys_exist(kind):
    """A key that was renamed would be forgotten there."""
    for key in FREE_KEYS | kind.free_keys:
        section, _, name = key.rpartition(".")
        assert hasattr(getattr(kind(), section) if section else kind(), name), key


SECTIONS = [ModelConfig, OptimConfig, MixConfig, SmoothConfig, ClassLossConfig, DataConfig, PointDataConfig]


def bare_numbers(hint):
    """Numbers in an annotation that have no range."""
    if get_origin(hint) is Annotated:
        return []
    return [hint] if hint in (int, float) else [n for part in get_args(hint) for n in bare_numbers(part)]


@pytest.mark.parametrize("kind", [RunConfig, ClassifyImagesConfig, ClassifyPointsConfig, *SECTIONS])
def test_every_number_has_a_range_that_is_checked(kind):
    given = {"root": "DIR"} if kind is PointDataConfig else {}
    for name, hint in hints(kind).items():
        assert not bare_numbers(hint), f"{kind.__name__}.{name} needs a range, such as Annotated[int, COUNT]"
        if (allowed := range_of(hint)) is None:
            continue
        bad = [math.nan, math.inf, True, "1", allowed.low - 1 if math.isfinite(allowed.low) else math.nan]
        bad += [0.5] * allowed.whole + [allowed.low] * allowed.above + [allowed.high] * allowed.below
        for value in bad:
            several = get_origin(hint) is tuple or "tuple" in str(hint)
            with pytest.raises(ValueError, match=rf"(^|\.){name}(\.a)? must be .*, got"):
                kind(**given, **{name: {"a": value} if "dict" in str(hint) else (value, value) if several else value})


def test_sections_are_walked_over_above():
    found = {
        type(getattr(kind(), f.name)) for kind in (ClassifyImagesConfig, ClassifyPointsConfig) for f in fields(kind)
    }
    assert {kind for kind in found if dataclasses.is_dataclass(kind)} == set(SECTIONS)


def test_run_folder(tmp_path):
    assert run_folder(ClassifyImagesConfig(output_dir="a/b")) == "a/b"
    assert run_folder(ClassifyImagesConfig(name="n")) == "runs/n"
    assert run_folder(ClassifyImagesConfig()) == "runs/coc_tiny-digits"
    data = DataConfig(source="folder", root=str(tmp_path / "flowers"))
    assert run_folder(ClassifyImagesConfig(data=data)) == "runs/coc_tiny-flowers"
    shards = DataConfig(source="wds/", root=str(tmp_path / "shards"))
    assert run_folder(ClassifyImagesConfig(data=shards)) == "runs/coc_tiny-shards"
    assert run_folder(ClassifyPointsConfig()) == "runs/coc_tiny-shapes"


@pytest.mark.parametrize("sched", ["step", "none"])
def test_settings_that_a_schedule_ignores_are_named(sched):
    """timm's schedulers take these and do nothing with them."""
    given = {"cooldown_epochs": 3, "warmup_epochs": 2}
    cooldown = f"optim.cooldown_epochs 3 is not used: {sched} has no cool-down"
    warmup = "optim.warmup_epochs 2 is not used: optim.sched none has no warm-up"
    assert OptimConfig(sched=sched, **given).unused() == [cooldown] + [warmup] * (sched == "none")
    assert OptimConfig(sched=sched).unused() == OptimConfig(sched="tanh", **given).unused() == []
    power = "optim.power 2 is not used: it is of optim.sched poly"
    assert OptimConfig(sched=sched, power=2.0).unused() == [power] and not OptimConfig(sched="poly", power=2.0).unused()
    line = "optim.decay_rate 0.2 is not used: it is of optim.sched step and multistep"
    assert OptimConfig(sched=sched, decay_rate=0.2).unused() == [line] * (sched == "none")
    line = "optim.milestones [3, 5] are not used: they are of optim.sched multistep"
    assert OptimConfig(sched=sched, milestones=(3, 5)).unused() == [line]
    line = "optim.warmup_steps 9 is not used: optim.sched none has no warm-up"
    assert OptimConfig(sched=sched, warmup_steps=9).unused() == [line] * (sched == "none")


@pytest.mark.parametrize(
    "given, message",
    [
        ({"sched": "multistep"}, r"optim.sched multistep needs optim.milestones, such as \[8, 11\]"),
        ({"sched": "multistep", "milestones": (11, 8)}, r"optim.milestones must grow, got \[11, 8\]"),
        ({"warmup_steps": 9, "warmup_epochs": 1}, "optim.warmup_steps and optim.warmup_epochs are both given"),
        ({"warmup_steps": 9, "sched_on_updates": False}, "optim.warmup_steps needs optim.sched_on_updates true"),
    ],
)
def test_schedules_that_make_no_sense(given, message):
    with pytest.raises(ValueError, match=message):
        OptimConfig(**given)

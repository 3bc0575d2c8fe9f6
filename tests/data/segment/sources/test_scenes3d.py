from __future__ import annotations

import numpy as np
import pytest

from pointmix.data.segment import sources  # noqa: F401  registers the sources
from pointmix.data.segment.clouds.transforms import eval_transform, train_transform
from pointmix.data.segment.config import SegmentDataConfig
from pointmix.data.segment.source import SEGMENT_SOURCES, SegmentSource
from pointmix.data.segment.sources.scenes3d import CLASSES, COUNTS, POINTS, Scenes3D, make_scene

SCENES = [make_scene(np.random.default_rng(seed)) for seed in range(40)]


def test_the_source():
    cfg = SegmentDataConfig(source="scenes3d")
    entry = SEGMENT_SOURCES.find("scenes3d")
    entry.check(cfg)
    source = entry.open(cfg, "train")
    assert isinstance(source, SegmentSource) and len(source) == COUNTS["train"] and source.categories is None
    assert tuple(source.classes) == CLASSES and len(source.palette) == len(set(source.palette)) == len(CLASSES)
    with pytest.raises(ValueError, match="data.classes is set, but data.source is scenes3d, which has labels of its"):
        entry.check(SegmentDataConfig(source="scenes3d", classes=("a",)))


def test_scenes_follow_from_split_and_index():
    train = Scenes3D("train")
    again = Scenes3D("train")
    again.read(5)  # in another order
    for index in (3, 5):
        a, b = train.read(index), again.read(index)
        assert np.array_equal(a.pos, b.pos) and np.array_equal(a.label, b.label)
    others = [train.read(4), Scenes3D("val").read(3), Scenes3D("test").read(3)]
    assert all(not np.array_equal(train.read(3).pos[:9], other.pos[:9]) for other in others)
    assert train.read(3) is train.read(3)


def test_scenes_have_a_floor_and_all_classes_occur():
    counts = np.sum([np.bincount(scene.label, minlength=len(CLASSES)) for scene in SCENES], axis=0)
    share = counts / counts.sum()
    assert share.min() > 0.02 and 0.3 < share[0] < 0.5 and 0.1 < share[1] < 0.3
    for scene in SCENES:
        assert POINTS[0] <= len(scene.pos) < POINTS[1] and scene.pos.dtype == np.float32
        floor = scene.pos[scene.label == 0]
        assert np.abs(floor[:, 2]).max() < 0.06 and len(floor) > 250 and (scene.pos[:, 2] > -0.06).all()
        assert 2 <= len(np.unique(scene.label)) <= len(CLASSES)
        assert np.ptp(scene.pos, axis=0)[:2].max() < 6.5 and np.ptp(scene.pos[:, 2]) < 1.6


def test_walls_stand_at_the_edge():
    for scene in SCENES:
        wall, floor = scene.pos[scene.label == 1], scene.pos[scene.label == 0]
        if len(wall):
            middle = floor.mean(0)[:2]
            assert np.linalg.norm(wall[:, :2] - middle, axis=1).min() > 1.2 and 0.7 < wall[:, 2].max() < 1.3
    assert 5 < sum((scene.label == 1).any() for scene in SCENES) < 35


def test_objects_do_not_touch_each_other():
    """Points of two kinds are further apart than points of one surface."""
    for scene in SCENES[:10]:
        on_object = scene.label > 1
        pos, label = scene.pos[on_object][:, :2], scene.label[on_object]
        away = np.linalg.norm(pos[:, None] - pos, axis=2)
        assert away[label[:, None] != label].min(initial=9) > 0.02


def test_rooms_are_turned():
    angles = []
    for scene in SCENES:
        floor = scene.pos[scene.label == 0][:, :2]
        floor = floor - (floor.min(0) + floor.max(0)) / 2
        corner = floor[np.linalg.norm(floor, axis=1).argmax()]
        angles.append(np.arctan2(corner[1], corner[0]) % (np.pi / 2))
    assert np.std(angles) > 0.3


def test_sides_of_objects_are_missing():
    """The middle of what is seen of a ball lies off its center, as far as half a radius for half a ball."""
    gap = []
    for seed in range(60):
        scene = make_scene(np.random.default_rng(seed))
        seen = scene.pos[scene.label == CLASSES.index("ball")].astype(np.float64)
        if not len(seen):
            continue
        # |p|^2 = 2 c.p + r^2 - |c|^2 on a sphere about c: a least-squares fit of the center
        equations = np.column_stack([2 * seen, np.ones(len(seen))])
        fit, rest, *_ = np.linalg.lstsq(equations, (seen**2).sum(1), rcond=None)
        if rest[0] / len(seen) < 0.01:  # a single ball
            radius = np.sqrt(fit[3] + (fit[:3] ** 2).sum())
            assert 0.38 < radius < 0.62
            gap.append(np.linalg.norm(seen.mean(0) - fit[:3]) / radius)
    assert len(gap) > 10 and min(gap) < 0.2 and max(gap) > 0.35


def test_normals_stand_on_the_surfaces():
    for scene in SCENES:
        normal, label = scene.features["normal"], scene.label
        assert normal.dtype == np.float32 and np.allclose(np.linalg.norm(normal, axis=1), 1, atol=1e-5)
        assert np.allclose(normal[label == 0].mean(0), [0, 0, 1], atol=0.03)
        if (label == 1).any():
            middle = scene.pos[label == 0].mean(0)
            inwards = ((middle - scene.pos) * normal)[label == 1].sum(1)
            assert (inwards > 0).all() and np.abs(normal[label == 1][:, 2]).max() < 0.5
        angle = ((normal[label == 0] @ [0, 0, 1]).clip(-1, 1)).mean()
        assert 0.98 < angle < 0.995  # noise of 0.1 along two axes


def test_points_are_in_random_order():
    labels = SCENES[0].label
    first, second = (np.bincount(part, minlength=len(CLASSES)) / len(part) for part in np.array_split(labels, 2))
    assert np.abs(first - second).max() < 0.05


def test_scenes_become_samples():
    scene, cfg = SCENES[0], SegmentDataConfig(source="scenes3d", features=(), max_points=1024)
    assert train_transform(cfg)(scene).points.pos.shape == (1024, 3)
    assert eval_transform(cfg)(scene).labels.tolist() == scene.label.tolist()


def test_a_plain_rule_does_not_solve_the_scenes_but_heights_tell_the_floor():
    """The height alone finds the floor; it tells objects apart hardly better than always naming the commonest."""
    pos, label = (np.concatenate([getattr(scene, key) for scene in SCENES]) for key in ("pos", "label"))
    assert ((pos[:, 2] < 0.03) == (label == 0)).mean() > 0.93
    on_object, bins = label > 1, np.digitize(pos[:, 2], np.linspace(0, 1.2, 13))
    table = np.array([np.bincount(label[on_object & (bins == b)], minlength=len(CLASSES)) for b in range(14)])
    assert table.max(1).sum() / on_object.sum() < 0.5

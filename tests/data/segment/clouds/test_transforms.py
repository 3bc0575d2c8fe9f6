from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from pointmix.data.segment.clouds.config import CloudSettings
from pointmix.data.segment.clouds.transforms import eval_transform, train_transform, whole_cloud
from pointmix.data.segment.sample import LabeledCloud
from pointmix.io.errors import BadMask, UnreadableSample

FAR = np.array([650000.0, 6860000.0, 120.0])
STILL = CloudSettings(rotate=0.0, flip=0.0, scale=(1.0, 1.0))  # no augmentation
NORMALS = replace(STILL, features=("number", "normal"), feature_scale={"number": 1.0, "normal": 1.0}, up="y")


def scene(n: int = 2000, size: tuple[float, float, float] = (10, 10, 3)) -> LabeledCloud:
    """Map coordinates; the feature `number` and the label tell which point it is and where."""
    rng = np.random.default_rng(0)
    pos = rng.random((n, 3)) * size
    features = {"number": np.arange(n), "rgb": rng.integers(0, 256, (n, 3), dtype=np.uint8), "normal": unit(rng, n)}
    return LabeledCloud(pos + FAR, features, (pos[:, 2] > 1).astype(np.int64))


def unit(rng: np.random.Generator, n: int) -> np.ndarray:
    normal = rng.standard_normal((n, 3))
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


def numbered(cfg: CloudSettings, **changes) -> CloudSettings:
    return replace(cfg, features=("number",), feature_scale={"number": 1.0}, **changes)


def drawn(cloud: LabeledCloud, cfg: CloudSettings):
    """A training sample, and which points of the cloud it holds."""
    batch = train_transform(cfg)(cloud)
    index = batch.points.feat[:, 0].long().numpy()
    assert len(np.unique(index)) == len(index) and np.array_equal(batch.labels.numpy(), cloud.label[index])
    return batch, index


def test_whole_clouds_in_evaluation():
    cloud = scene()
    batch = eval_transform(numbered(STILL))(cloud)
    assert batch.points.feat[:, 0].tolist() == list(range(2000)) and batch.category is None
    assert np.array_equal(batch.labels.numpy(), cloud.label) and batch.labels.dtype == torch.int64
    middle = (cloud.pos.min(0) + cloud.pos.max(0)) / 2
    middle[2] = cloud.pos[:, 2].min()
    assert batch.points.pos.dtype == torch.float32
    assert np.abs(batch.points.pos.numpy() - (cloud.pos - middle)).max() < 1e-6


def test_evaluation_keeps_the_unit_of_the_file():
    cloud = scene()
    pos = whole_cloud(cloud, CloudSettings(normalize="unit_sphere", up="y")).pos
    assert abs((pos[:, 0].max() - pos[:, 0].min()) - np.ptp(cloud.pos[:, 0])) < 1e-5
    near = LabeledCloud(cloud.pos - FAR, {}, cloud.label)
    assert np.allclose(whole_cloud(near, CloudSettings(normalize="none")).pos, near.pos, atol=1e-6)


def test_training_without_a_crop_takes_the_whole_cloud_in_random_order():
    cloud = scene()
    batch, index = drawn(cloud, numbered(STILL))
    assert sorted(index) == list(range(2000)) and list(index) != list(range(2000))
    whole = eval_transform(numbered(STILL))(cloud)
    assert torch.equal(batch.points.pos, whole.points.pos[index])


@pytest.mark.parametrize("crop, extent", [("sphere", 2.0), ("box", 3.0)])
def test_crops_surround_a_random_point(crop, extent):
    cloud = scene()
    sizes = set()
    for _ in range(5):
        batch, index = drawn(cloud, numbered(STILL, crop=crop, crop_extent=extent))
        pos = cloud.pos[index]
        assert abs(batch.points.pos.numpy()[:, 2].min()) < 1e-6
        if crop == "sphere":
            inside = [set(np.flatnonzero(a <= extent)) for a in np.linalg.norm(pos[:, None] - cloud.pos, axis=2)]
            assert set(index) in inside
        else:
            flat = np.abs(pos[:, None, :2] - cloud.pos[:, :2]).max(2)
            assert set(index) in [set(np.flatnonzero(a <= extent / 2)) for a in flat]
            assert np.ptp(pos[:, 2]) > 2.5
        sizes.add(len(index))
    assert len(sizes) > 1


def test_the_nearest_points_to_the_middle_are_kept():
    cloud = scene()
    _, index = drawn(cloud, numbered(STILL, crop="sphere", max_points=300))
    assert len(index) == 300
    away = np.linalg.norm(cloud.pos[index][:, None] - cloud.pos, axis=2)
    assert set(index) in [set(row.argsort()[:300]) for row in away]
    _, index = drawn(cloud, numbered(STILL, crop="box", max_points=300))
    assert np.ptp(cloud.pos[index][:, 2]) > 2.5  # a column


def test_objects_give_random_points():
    cloud = scene()
    picks = [drawn(cloud, numbered(STILL, max_points=300))[1] for _ in range(2)]
    assert [len(index) for index in picks] == [300, 300] and set(picks[0]) != set(picks[1])
    assert np.ptp(cloud.pos[picks[0]], axis=0).min() > 2.5


def test_a_grid_leaves_one_point_a_cell():
    cloud = scene()
    _, index = drawn(cloud, numbered(STILL, grid_size=1.0))
    cells = np.floor(cloud.pos - cloud.pos.min(0)).astype(int)
    assert len(index) == len(np.unique(cells, axis=0)) == len(np.unique(cells[index], axis=0))
    assert (
        len(drawn(cloud, numbered(STILL, grid_size=1.0, crop="sphere", crop_extent=2.0, max_points=9, min_points=5))[1])
        == 9
    )


def test_a_cloud_of_fewer_points_than_a_crop_is_taken_whole():
    cloud = scene(50)
    assert len(drawn(cloud, numbered(STILL, crop="sphere", crop_extent=100.0, max_points=1000))[1]) == 50
    assert len(drawn(cloud, numbered(STILL, max_points=1000))[1]) == 50


def test_crops_of_too_few_points_or_without_a_label_are_drawn_again_then_refused():
    cloud = scene(200)
    lonely = np.concatenate([cloud.pos, cloud.pos[:20] + np.arange(1, 21)[:, None] * [100, 0, 0]])
    number = {"number": np.arange(220)}
    for label in (np.zeros(220, int), np.where(np.arange(220) < 200, 0, -1)):
        mixed = LabeledCloud(lonely, number, label)
        for _ in range(20):
            assert drawn(mixed, numbered(STILL, crop="sphere", crop_extent=20.0))[1].max() < 200
    with pytest.raises(UnreadableSample, match="10 random crops have too few points, .* data.min_points 201"):
        drawn(cloud, numbered(STILL, crop="sphere", crop_extent=1.0, min_points=201))
    with pytest.raises(UnreadableSample, match="the last one 12; expected at least data.min_points 16"):
        train_transform(STILL)(scene(12))
    assert len(eval_transform(STILL)(scene(12)).labels) == 12


def test_dropout():
    counts = [len(drawn(scene(), numbered(STILL, dropout_ratio=0.5))[1]) for _ in range(30)]
    assert 1000 <= min(counts) < 1200 and 1800 < max(counts) <= 2000


def test_rotation_turns_positions_and_normals_about_the_up_axis():
    cloud = scene()
    cfg = replace(
        STILL, features=("number", "normal"), feature_scale={"number": 1.0, "normal": 1.0}, up="y", rotate=180.0
    )
    batch, index = drawn(cloud, cfg)
    before = whole_cloud(cloud, cfg)
    old, new = before.pos[index], batch.points.pos
    assert torch.allclose(new[:, 1], old[:, 1], atol=1e-5) and (new - old).abs().max() > 0.5
    turn = torch.linalg.lstsq(old, new).solution
    assert torch.allclose(turn @ turn.T, torch.eye(3), atol=1e-5) and turn.det() > 0.99
    assert torch.allclose(batch.points.feat[:, 1:], before.feat[index][:, 1:] @ turn, atol=1e-5)
    assert torch.equal(
        train_transform(replace(cfg, rotate=0.0))(cloud).points.pos.sort(0).values, before.pos.sort(0).values
    )


def test_tilts_turn_positions_and_normals_about_a_horizontal_axis():
    cloud, cfg = scene(300), replace(NORMALS, up="z")
    before = train_transform(cfg)(cloud).points
    tilted = [train_transform(replace(cfg, tilt=10.0))(cloud).points for _ in range(5)]
    rows = before.feat[:, 0].argsort()
    for points in tilted:
        own = points.feat[:, 0].argsort()
        torch.testing.assert_close(torch.pdist(points.pos[own]), torch.pdist(before.pos[rows]))
        shift = (points.pos[own] - before.pos[rows])[:, [0]]
        assert shift.abs().max() < 1e-4  # the x axis is that of the tilt
        assert points.pos[:, 2].min() == 0
        level = (points.feat[own][:, 1:] * torch.tensor([1.0, 0, 0])).sum(1)
        torch.testing.assert_close(level, before.feat[rows][:, 1])
        cosine = torch.nn.functional.cosine_similarity(points.feat[own][:, 2:], before.feat[rows][:, 2:])
        assert np.cos(np.deg2rad(10)) - 1e-5 <= cosine.min() <= cosine.max() <= 1 + 1e-5
        assert cosine.max() - cosine.min() < 1e-3  # one angle for all
    assert len({round(float(points.pos[:, 2].max()), 4) for points in tilted}) == 5


def test_flips_mirror_the_horizontal_axes_and_normals():
    cloud = scene()
    cfg = replace(NORMALS, flip=1.0)
    batch, index = drawn(cloud, cfg)
    before = whole_cloud(cloud, cfg)
    mirror = torch.tensor([-1.0, 1.0, -1.0])
    assert torch.equal(batch.points.pos, before.pos[index] * mirror)
    assert torch.equal(batch.points.feat[:, 1:], before.feat[index][:, 1:] * mirror)


def test_scale_jitter_and_feature_dropout():
    cloud = scene()
    before = whole_cloud(cloud, numbered(STILL)).pos
    batch, index = drawn(cloud, numbered(replace(STILL, scale=(2.0, 3.0))))
    factor = (batch.points.pos / before[index])[before[index].abs().min(1).values > 0.1]
    assert factor.std() < 1e-4 and 2 <= factor.mean() <= 3
    batch, index = drawn(cloud, numbered(STILL, jitter=0.02))
    assert abs((batch.points.pos - before[index]).std() - 0.02) < 0.001
    dropped = [
        train_transform(numbered(STILL, feature_dropout=0.5))(cloud).points.feat.abs().sum() == 0 for _ in range(40)
    ]
    assert 8 < sum(dropped) < 32


def test_features_are_scaled_and_categories_kept():
    cloud = replace(scene(), category=7)
    cfg = replace(STILL, features=("rgb",), feature_scale={"rgb": 255.0})
    for transform in (train_transform(cfg), eval_transform(cfg)):
        batch = pickle.loads(pickle.dumps(transform))(cloud)
        assert batch.points.feat.max() <= 1 and batch.points.feat.shape == (2000, 3)
        assert batch.category.tolist() == [7] and batch.category.dtype == torch.int64


def test_the_seed_decides():
    cfg = CloudSettings(crop="sphere", crop_extent=2.0, grid_size=0.2, jitter=0.01, dropout_ratio=0.2)
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(train_transform(cfg)(scene()).points.pos)
    assert torch.equal(found[0], found[1]) and found[0].shape != found[2].shape


@pytest.mark.parametrize("normalize", ["center", "unit_sphere"])
def test_map_coordinates_give_the_samples_of_local_ones(normalize):
    cloud = scene()
    local = replace(cloud, pos=cloud.pos - FAR)
    cfg = numbered(CloudSettings(), normalize=normalize, crop="sphere", crop_extent=3.0, grid_size=0.3, max_points=200)
    for seed in range(20):
        found = []
        for one in (cloud, local):
            torch.manual_seed(seed)
            found.append(drawn(one, cfg))
        assert np.array_equal(found[0][1], found[1][1])
        assert (found[0][0].points.pos - found[1][0].points.pos).abs().max() < 1e-6


def test_labels_of_another_length_are_refused():
    cloud = LabeledCloud(np.zeros((4, 3)), {}, np.zeros(5, int))
    for transform in (train_transform, eval_transform):
        with pytest.raises(BadMask, match="labels are .5,., expected one for each of 4 points"):
            transform(CloudSettings(features=()))(cloud)


def test_bad_clouds():
    cloud = scene(40)
    pos = cloud.pos.copy()
    pos[3, 1], pos[5, 0] = np.nan, np.inf
    for transform in (train_transform(STILL), eval_transform(STILL)):
        with pytest.raises(UnreadableSample, match="the positions are NaN or infinite at 2 of 40 points"):
            transform(replace(cloud, pos=pos))
        with pytest.raises(UnreadableSample, match="all 40 points are ignored, none has a label"):
            transform(replace(cloud, label=np.full(40, -1)))
        with pytest.raises(UnreadableSample, match="it has no point"):
            transform(LabeledCloud(np.zeros((0, 3)), {}, np.zeros(0, int)))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"crop": "box"}, "data.crop box needs a size: set data.crop_extent or data.max_points"),
        ({"crop_extent": 2.0}, "data.crop_extent is 2.0, but data.crop is none; expected sphere or box"),
        ({"scale": (1.2, 0.8)}, "data.scale 1.2, 0.8: expected the smaller number first"),
        ({"features": ("rgb",)}, "data.feature_scale has no rgb, which is among data.features"),
    ],
)
def test_settings_that_contradict_themselves(settings, message):
    with pytest.raises(ValueError, match=message):
        train_transform(CloudSettings(**settings))


def test_a_frame_of_a_depth_camera_is_thinned_out():
    """180,000 points."""
    rng = np.random.default_rng(0)
    frame = LabeledCloud(
        (rng.random((180_000, 3)) * 2).astype(np.float32),
        {"rgb": rng.integers(0, 256, (180_000, 3), dtype=np.uint8)},
        rng.integers(0, 2, 180_000),
    )
    cfg = CloudSettings(features=("rgb",), feature_scale={"rgb": 255.0}, max_points=4096)
    assert train_transform(cfg)(frame).points.feat.shape == (4096, 3)
    assert len(train_transform(replace(cfg, grid_size=0.2))(frame).labels) == 1000
    assert len(eval_transform(cfg)(frame).labels) == 180_000

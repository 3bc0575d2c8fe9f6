"""Double precision in, single precision in the network: what is far from the origin keeps its shape."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import pointmix
from pointmix import PointSet
from pointmix.data.clouds.config import PointDataConfig
from pointmix.data.clouds.splits import build_points, build_points_test
from pointmix.explain import draw_clouds
from pointmix.ops.recenter import recenter_for, take_off_whole
from pointmix.tasks.classify_points.files import read_for, sampled_as

HEIGHTS = 1019
PTR = torch.tensor([0, HEIGHTS])
SMALL = dict(
    depths=(1, 1), dims=(8, 8), mlp_ratios=(2, 2), windows_per_side=(2, 1), centers_per_side=(2, 2), heads=1, head_dim=4
)


def on_the_map() -> torch.Tensor:
    """Points in map coordinates, each at a height of its own, on the axis where the numbers are largest."""
    rng = np.random.default_rng(0)
    pos = [500_000 + rng.random(HEIGHTS), 4_500_000 + rng.permutation(HEIGHTS) / 500, rng.random(HEIGHTS)]
    return torch.from_numpy(np.stack(pos, axis=1))


def heights(points: PointSet) -> int:
    return len(points.pos[:, 1].unique())


def same_shape(pos: torch.Tensor, exact: torch.Tensor) -> bool:
    """Whether these are the exact points, moved."""
    return torch.allclose(pos.double() - pos[0].double(), exact - exact[0], rtol=0, atol=1e-6)


# ---- the rule -------------------------------------------------------------------------------------------------------


def test_a_cast_keeps_what_a_bare_one_loses():
    exact = on_the_map()
    assert len(exact[:, 1].float().unique()) == 5
    points = PointSet.from_points(exact)
    for cast in (points.to(torch.float32), points.to(torch.empty(0)), points.to("cpu", torch.float32)):
        assert heights(cast) == HEIGHTS and same_shape(cast.pos, exact)


@pytest.mark.parametrize(
    "pos, dtype",
    [
        (on_the_map().float(), torch.float32),  # nothing is cast
        (on_the_map().float(), torch.float64),
        (torch.rand(9, 3, dtype=torch.float64) + 100, torch.float32),  # not far enough
        (torch.rand(9, 3) + 5, torch.float16),
        (torch.full((9, 3), 1e9, dtype=torch.float64), torch.float32),  # one place has no shape
    ],
)
def test_what_loses_nothing_stays_where_it_is(pos, dtype):
    assert torch.equal(recenter_for(pos, torch.tensor([0, len(pos)]), dtype), pos)


def test_every_set_by_itself_and_a_set_as_a_whole():
    near, far = torch.rand(7, 3, dtype=torch.float64), on_the_map()
    pos = recenter_for(torch.cat([near, far]), torch.tensor([0, 7, 7 + HEIGHTS]), torch.float32)
    assert torch.equal(pos[:7], near)
    ends = torch.stack(pos[7:].aminmax(dim=0))  # the small axis moves as well
    torch.testing.assert_close(ends[0], -ends[1])
    assert recenter_for(torch.rand(5, 3) + 500, torch.tensor([0, 5]), torch.float16).abs().max() <= 0.5


def test_lattices_are_where_they_are():
    mask = torch.zeros(999, 999, dtype=torch.bool)
    mask[-2:, -2:] = True
    points = PointSet.from_image(torch.rand(1, 999, 999, dtype=torch.float64), mask)
    assert torch.equal(points.to(torch.float16).pos, points.pos.half())


def test_gradients_pass():
    pos = on_the_map().requires_grad_()
    recenter_for(pos, PTR, torch.float32).float().sum().backward()
    assert torch.equal(pos.grad, torch.ones_like(pos))


def test_integers_and_lists_keep_them_as_well(tmp_path):
    grid = (on_the_map() * 1000).round().long()  # in millimeters
    np.save(tmp_path / "a.npy", grid.numpy())
    for points in (PointSet.from_file(tmp_path / "a.npy"), PointSet.from_points(on_the_map().tolist())):
        assert heights(points.to(torch.float32)) == HEIGHTS


# ---- training, prediction, pictures ---------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("training", "test"):
        path = tmp_path / f"main_split/{split}_objectdataset.h5"
        path.parent.mkdir(exist_ok=True)
        with h5py.File(path, "w") as file:
            file["data"], file["label"] = torch.stack([on_the_map()] * 4).numpy(), np.arange(4) % 2
    return tmp_path


@pytest.mark.parametrize("normalize", ["none", "unit_sphere", "unit_cube"])
@pytest.mark.parametrize("cache", [False, True])
def test_training_sees_what_prediction_sees(root, normalize, cache):
    settings = dict(points=HEIGHTS, normalize=normalize, variant="obj_bg", source="scanobjectnn", root=str(root))
    cfg = PointDataConfig(**settings, cache=cache, scale=(1, 1), translate=0, shuffle=False, val_fraction=0)
    splits = build_points(cfg, batch_size=4, eval_batch_size=4, seed=0)
    np.save(root / "cloud.npy", on_the_map().numpy())
    predicted = sampled_as(cfg, keep_all=True)(read_for(root / "cloud.npy", cfg))
    assert predicted.pos.dtype == torch.float32 and heights(predicted) == HEIGHTS
    for batch in (
        next(iter(splits.train)),
        next(iter(splits.test)),
        next(iter(build_points_test(cfg, batch_size=4)[0])),
    ):
        for cloud in batch[0].unbind():
            assert torch.equal(cloud.pos, predicted.pos)


def test_farthest_points_are_found_before_the_cast(root):
    cfg = PointDataConfig(points=64, sampling="fps", variant="obj_bg", source="scanobjectnn", root=str(root))
    test, _ = build_points_test(cfg, batch_size=1)
    assert heights(next(iter(test))[0]) == 64


@pytest.mark.parametrize("name, more", [("coc_tiny", SMALL), ("pointmlp_elite", dict(dim=8, neighbors=4))])
@pytest.mark.parametrize("cast", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_takes_any_precision(name, more, cast):
    model = pointmix.create_model(name, num_classes=3, in_chans=2, coord_dims=3, **more).eval()
    points = PointSet.from_points(torch.rand(40, 3).to(cast).float(), torch.rand(40, 2).to(cast).float())
    with torch.no_grad():
        expected = model(points)
        assert torch.equal(model(points.to(cast)), expected)
        if cast == torch.float64:
            exact = model.double()(points.to(cast))
            assert exact.dtype == torch.float64
            torch.testing.assert_close(exact.float(), expected)
            assert torch.equal(model(points), exact)


@pytest.mark.parametrize("name, more", [("coc_tiny", SMALL), ("pointmlp_elite", dict(dim=8, neighbors=4))])
def test_a_network_sees_the_shape_at_map_coordinates(name, more):
    model = pointmix.create_model(name, num_classes=3, in_chans=0, coord_dims=3, **more).eval()
    points = PointSet.from_points(on_the_map())
    seen = model.as_points(points)
    assert seen.feat.dtype == torch.float32 and heights(seen) == HEIGHTS
    middle = torch.stack(points.pos.aminmax(dim=0)).mean(0)
    with torch.no_grad():
        moved = model(PointSet.from_points((points.pos - middle).float()))
        torch.testing.assert_close(model(points), moved)
        torch.testing.assert_close(model(points.pos[None]), moved)  # a tensor (B, N, D)


def test_images_of_any_precision():
    model, images = pointmix.create_model("coc_tiny", num_classes=3, **SMALL).eval(), torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        for cast in (torch.float64, torch.bfloat16):
            rounded = images.to(cast).float()
            assert torch.equal(model(images.to(cast)), model(rounded))
            assert torch.equal(
                model(PointSet.from_images(rounded).with_feat(images.to(cast).movedim(1, -1).flatten(0, 2))),
                model(rounded),
            )


def test_marks_of_a_picture_lie_among_the_points(tmp_path, monkeypatch):
    model = pointmix.create_model("coc_tiny", num_classes=3, in_chans=0, coord_dims=3, **SMALL)
    drawn = []
    monkeypatch.setattr("pointmix.explain.clouds.write_png", lambda path, rows, titles: drawn.extend(rows[0]))
    draw_clouds(model, PointSet.from_points(on_the_map()), tmp_path / "a.png")
    for panel in drawn:
        assert np.abs(panel.pos).max() < 2 and np.abs(panel.marks).max(initial=0) < 2


def test_whole_numbers_are_taken_off_exactly():
    far = torch.rand(500, 3, dtype=torch.float64) * 37 - 11 + torch.tensor([500_000.0, 4_500_000.0, -80.0])
    moved = far - torch.tensor([500_003.0, 4_499_990.0, -2.0])
    assert not torch.equal(far - far.mean(0), moved - moved.mean(0))  # what is not exact where the set lies
    first, offset = take_off_whole(far)
    assert torch.equal(first, take_off_whole(moved)[0]) and torch.equal(first + offset, far)
    assert ((first.amin(0) >= 0) & (first.amin(0) < 1)).all()
    single = moved.float()
    assert torch.equal(take_off_whole(single)[0], single)

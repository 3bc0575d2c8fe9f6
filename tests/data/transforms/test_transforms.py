from __future__ import annotations

from functools import partial

import pytest
import torch

from pointmix import PointSet
from pointmix import transforms as T
from pointmix.data.transforms.geometry import AXES
from pointmix.layouts.cloud import Cloud

SIZES = (50, 1, 7, 200)


def cloud(n: int, channels: int = 4) -> PointSet:
    """Features hold a copy of the position first, so that both can be seen to stay together."""
    pos = torch.randn(n, 3, dtype=torch.float64)
    return PointSet.from_points(pos, torch.cat([pos, torch.rand(n, channels - 3, dtype=torch.float64)], dim=1))


@pytest.fixture
def clouds() -> PointSet:
    return PointSet.cat([cloud(n) for n in SIZES])


def followed(step, points: PointSet) -> tuple[PointSet, torch.Tensor]:
    """What a transform gives, and the index of each of its points in `points`."""
    index = torch.arange(len(points.pos)).to(points.feat)[:, None]
    out = step(points.with_feat(torch.cat([points.feat, index], dim=1)))
    return out.with_feat(out.feat[:, :-1]), out.feat[:, -1].long()


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


EVERY = {
    "center": partial(T.center, up="z"),
    "unit_sphere": T.unit_sphere,
    "unit_cube": T.unit_cube,
    "scale": partial(T.scale, factor=(0.5, 2.0), per_axis=True),
    "translate": partial(T.translate, max_distance=0.3),
    "rotate": partial(T.rotate, degrees=180, axis="any"),
    "jitter": partial(T.jitter, sigma=0.1),
    "dropout": partial(T.dropout, ratio=(0.2, 0.7)),
    "crop": partial(T.crop, radius=0.8),
    "shuffle": T.shuffle,
}
RANDOM = [name for name in EVERY if name != "center" and not name.startswith("unit")]


@pytest.mark.parametrize("name", EVERY)
def test_positions_and_features_stay_together(clouds, name):
    torch.manual_seed(3)
    out, kept = followed(EVERY[name], clouds)
    assert out.num_sets == len(SIZES) and len(kept) == len(out.pos)
    assert torch.equal(out.feat, clouds.feat[kept])  # none of them but vectors are changed
    assert torch.equal(out.batch, clouds.batch[kept])
    if name in ("dropout", "crop", "shuffle"):
        assert torch.equal(out.pos, clouds.pos[kept])
    torch.manual_seed(3)
    alone = EVERY[name](clouds)
    assert torch.equal(alone.pos, out.pos) and torch.equal(alone.ptr, out.ptr)


@pytest.mark.parametrize("name", EVERY)
def test_half_precision_is_transformed_in_float32(name):
    """1,000 points at 100 add up to more than float16 holds, so does the sum of two corners."""
    pos = torch.cat([100 + torch.randn(1000, 3), torch.tensor([[40_000.0, 40_000, 3], [35_000, 4, 40_000]])]).half()
    normals = torch.nn.functional.normalize(torch.randn(1002, 3))
    transform, results = EVERY[name], []
    if name in ("scale", "rotate"):
        transform = partial(transform, **{"normals" if name == "scale" else "vectors": (0, 3)})
    for half in (True, False):
        torch.manual_seed(3)
        points = PointSet.from_points(pos if half else pos.float(), normals.half() if half else normals.half().float())
        results.append(transform(points))
    found, expected = results
    assert found.pos.dtype == found.feat.dtype == torch.float16 and found.pos.isfinite().all()
    assert torch.equal(found.pos, expected.pos.half()) and torch.equal(found.feat, expected.feat.half())


@pytest.mark.parametrize("name", RANDOM)
def test_the_seed_decides(clouds, name):
    step = EVERY[name]
    first, again, other = (step(clouds, generator=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first.pos, again.pos) and torch.equal(first.ptr, again.ptr)
    assert first.pos.shape != other.pos.shape or not torch.equal(first.pos, other.pos)
    before = torch.get_rng_state()
    step(clouds, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["center", "unit_sphere", "unit_cube"])
def test_sets_are_treated_by_themselves(clouds, name):
    whole = EVERY[name](clouds)
    for part, alone in zip(whole.unbind(), clouds.unbind(), strict=True):
        assert torch.allclose(part.pos, EVERY[name](alone).pos, atol=1e-12)


def test_center_puts_the_box_on_the_ground(clouds):
    for up, low in (("z", [2]), ("x", [0]), (None, [])):
        for points in T.center(clouds, up=up).unbind():
            middle = (points.pos.amin(0) + points.pos.amax(0)) / 2
            others = [i for i in range(3) if i not in low]
            assert middle[others].abs().max() < 1e-9 and all(points.pos[:, i].min() == 0 for i in low)


def test_center_is_exact_far_from_the_origin():
    near = PointSet.from_points((torch.randn(50, 3, dtype=torch.float64) * 1024).round() / 1024)
    far = PointSet.from_points(near.pos + torch.tensor([500_000.0, 4_500_000.0, -300.0], dtype=torch.float64))
    assert torch.equal(T.center(near, up="y").pos, T.center(far, up="y").pos)


def test_unit_sphere_and_cube_fill_their_solids(clouds):
    sphere, cube = T.unit_sphere(clouds).unbind(), T.unit_cube(clouds).unbind()
    for s, c, n in zip(sphere, cube, SIZES, strict=True):
        assert s.pos.mean(0).abs().max() < 1e-12 and c.pos.abs().max() <= 0.5 + 1e-12
        if n > 1:
            assert abs(s.pos.norm(dim=1).max() - 1) < 1e-12
            sides = c.pos.amax(0) - c.pos.amin(0)
            assert abs(sides.max() - 1) < 1e-12 and (c.pos.amax(0) + c.pos.amin(0)).abs().max() < 1e-12


@pytest.mark.parametrize("name", ["center", "unit_sphere", "unit_cube"])
def test_points_in_one_place_become_zeros(name):
    same = PointSet.from_points(torch.full((5, 3), 7.0))
    assert torch.equal(EVERY[name](same).pos, torch.zeros(5, 3))


def test_scale_draws_a_factor_for_each_set_and_axis(clouds):
    ratio = T.scale(clouds, factor=(0.5, 2.0), per_axis=True, generator=seeded()).pos / clouds.pos
    firsts = ratio[clouds.ptr[:-1]]  # (B, 3)
    assert torch.allclose(ratio, firsts[clouds.batch])
    assert len(firsts.flatten().unique()) == 12 and 0.5 <= firsts.min() and firsts.max() <= 2
    even = T.scale(clouds, factor=(0.5, 2.0), generator=seeded()).pos / clouds.pos
    assert torch.allclose(even, even[clouds.ptr[:-1], :1][clouds.batch].expand(-1, 3))
    assert torch.equal(T.scale(clouds, factor=(1, 1), per_axis=True).pos, clouds.pos)


def test_normals_stay_at_right_angles_and_keep_their_length():
    """A surface through u and v has the normal u x v: after the transform too."""
    u, v = torch.randn(2, 20, 3, dtype=torch.float64)
    normal = torch.nn.functional.normalize(torch.linalg.cross(u, v))
    points = PointSet.from_points(torch.cat([u, v]), torch.cat([torch.rand(40, 1), normal.repeat(2, 1)], dim=1))
    for step in (
        partial(T.scale, factor=(0.3, 3.0), per_axis=True, normals=(1, 4)),
        partial(T.rotate, degrees=180, axis="any", vectors=(1, 4)),
    ):
        out = step(points)
        moved = out.feat[:20, 1:]
        cross = torch.nn.functional.normalize(torch.linalg.cross(out.pos[:20], out.pos[20:]))
        assert torch.allclose(moved, cross, atol=1e-12) and not torch.allclose(moved, normal, atol=1e-3)
        assert torch.equal(out.feat[:, 0], points.feat[:, 0])


def test_translation_stays_within_its_range(clouds):
    moved = T.translate(clouds, max_distance=0.3).pos - clouds.pos
    firsts = moved[clouds.ptr[:-1]]
    assert torch.allclose(moved, firsts[clouds.batch]) and firsts.abs().max() <= 0.3
    assert len(firsts.flatten().unique()) == 12


@pytest.mark.parametrize("axis, expected", [("x", (1.0, -3.0, 2.0)), ("y", (3.0, 2.0, -1.0)), ("z", (-2.0, 1.0, 3.0))])
def test_a_quarter_turn(axis, expected):
    points = PointSet.from_points(torch.tensor([[1.0, 2.0, 3.0]]))
    turned = T.rotate(points, degrees=(90, 90), axis=axis).pos
    assert torch.allclose(turned, torch.tensor([expected]), atol=1e-6)


@pytest.mark.parametrize("axis", AXES)
def test_rotation_keeps_distances_and_handedness(clouds, axis):
    turned = T.rotate(clouds, degrees=180, axis=axis).pos
    for lo, hi in zip(clouds.ptr, clouds.ptr[1:], strict=False):
        assert torch.allclose(torch.pdist(turned[lo:hi]), torch.pdist(clouds.pos[lo:hi]))
    first = slice(0, 3)
    assert torch.allclose(torch.linalg.det(turned[first]), torch.linalg.det(clouds.pos[first]))
    assert not torch.allclose(turned, clouds.pos, atol=1e-2)


def test_rotation_stays_within_its_range(clouds):
    small = T.rotate(clouds, degrees=5, axis="y").pos
    angle = torch.rad2deg(torch.atan2(small[:, 0], small[:, 2]) - torch.atan2(clouds.pos[:, 0], clouds.pos[:, 2]))
    angle = (angle + 180) % 360 - 180
    assert 0 < angle.abs().max() <= 5 and torch.allclose(small[:, 1], clouds.pos[:, 1])
    flat = PointSet.from_points(torch.tensor([[1.0, 0.0]]))
    assert torch.allclose(T.rotate(flat, degrees=(90, 90), axis="z").pos, torch.tensor([[0.0, 1.0]]), atol=1e-6)


def test_jitter_is_clipped_and_each_points_own(clouds):
    moved = T.jitter(clouds, sigma=0.1, clip=0.05).pos - clouds.pos
    assert moved.abs().max() <= 0.05 + 1e-12 and (moved.abs() < 0.049).any()
    free = T.jitter(clouds, sigma=0.1).pos - clouds.pos
    assert abs(free.std() - 0.1) < 0.01 and len(free.unique()) == free.numel()


def test_dropout_keeps_the_order_and_never_drops_all(clouds):
    out, kept = followed(partial(T.dropout, ratio=0.4), clouds)
    assert out.ptr.diff().tolist() == [30, 1, 4, 120] and (kept.diff() > 0).all()
    assert T.dropout(clouds, ratio=1.0).ptr.diff().tolist() == [1, 1, 1, 1]
    assert torch.equal(T.dropout(clouds, ratio=0.0).pos, clouds.pos)
    sizes = {len(T.dropout(cloud(100), ratio=(0.1, 0.5)).pos) for _ in range(40)}
    assert len(sizes) > 10 and 50 <= min(sizes) and max(sizes) <= 90


def test_every_point_is_as_likely_to_be_dropped():
    points, step = PointSet.cat([cloud(10), cloud(5)]), partial(T.dropout, ratio=0.4)
    kept = torch.stack([torch.bincount(followed(step, points)[1], minlength=15) for _ in range(500)])
    assert (kept.float().mean(0) - 0.6).abs().max() < 0.1


@pytest.mark.parametrize("shape", ["sphere", "box"])
def test_crop_keeps_what_is_near_one_of_the_points(clouds, shape):
    out, kept = followed(partial(T.crop, radius=1.0, shape=shape), clouds)
    for b in range(len(SIZES)):
        mine = clouds.pos[clouds.batch == b]
        away = mine[:, None] - mine
        near = (away.norm(dim=2) if shape == "sphere" else away.abs().amax(2)) <= 1.0  # (N, N)
        chosen = torch.isin(torch.arange(len(clouds.pos)), kept)[clouds.batch == b]
        assert (near == chosen).all(1).any()
    assert len(T.crop(clouds, radius=0.0).pos) == len(SIZES)


def test_shuffle_is_a_permutation_within_each_set(clouds):
    out, order = followed(T.shuffle, clouds)
    assert torch.equal(order.sort().values, torch.arange(len(order))) and torch.equal(out.ptr, clouds.ptr)
    assert torch.equal(clouds.batch[order], clouds.batch) and not torch.equal(order[:50], torch.arange(50))
    single = followed(T.shuffle, cloud(30))[1]
    assert torch.equal(single.sort().values, torch.arange(30)) and not torch.equal(single, torch.arange(30))


def test_compose_applies_every_step(clouds):
    augment = T.compose([partial(T.dropout, ratio=0.5), partial(T.rotate, degrees=30), T.shuffle])
    torch.manual_seed(5)
    out, kept = followed(augment, clouds)
    assert torch.equal(out.feat, clouds.feat[kept])
    torch.manual_seed(5)
    assert torch.equal(augment(clouds).pos, out.pos)
    assert T.compose([])(clouds) is clouds


def test_lattices_can_be_thinned_out_but_not_moved():
    images = PointSet.from_images(torch.rand(2, 3, 6, 5))
    out, kept = followed(partial(T.dropout, ratio=0.5), images)
    assert out.ptr.tolist() == [0, 15, 30] and torch.equal(out.feat, images.feat[kept])
    assert T.shuffle(images).to_image().shape == (2, 3, 6, 5)
    with pytest.raises(ValueError, match=r"rotate: these points lie on a lattice; .* points.as_cloud\(\)"):
        T.rotate(images, degrees=10, axis="z")
    assert T.translate(images.as_cloud(), max_distance=0.1).num_sets == 2


def test_what_was_farthest_no_longer_is(clouds):
    nested = PointSet(clouds.pos, clouds.feat, clouds.ptr, Cloud(sampling="grid", nested=True))
    for step in EVERY.values():
        assert step(nested).layout == Cloud(sampling="grid")


@pytest.mark.parametrize("name", EVERY)
def test_single_precision_and_no_features(name):
    points = PointSet.from_points(torch.randn(20, 3))
    out = EVERY[name](points)
    assert out.pos.dtype == torch.float32 and out.feat.shape == (len(out.pos), 0)


@pytest.mark.parametrize(
    "step, message",
    [
        (partial(T.scale, factor=(2, 1)), "scale: factor must be two positive numbers"),
        (partial(T.scale, factor=(0, 1)), "scale: factor"),
        (partial(T.scale, factor=(1, 2), normals=(2, 5)), "scale: channels 2 to 5 are not vectors in 3 dimensions"),
        (partial(T.translate, max_distance=-1), "translate: max_distance"),
        (partial(T.rotate, degrees=float("nan")), "rotate: degrees"),
        (partial(T.rotate, degrees=10, axis="up"), "rotate: axis must be one of x, y, z, any, got 'up'"),
        (partial(T.rotate, degrees=10, vectors=(0, 2)), "rotate: channels 0 to 2"),
        (partial(T.jitter, sigma=-0.1), "jitter: sigma and clip"),
        (partial(T.dropout, ratio=1.5), "dropout: ratio must be within 0 to 1"),
        (partial(T.crop, radius=-1), "crop: radius"),
        (partial(T.crop, radius=1, shape="ring"), "crop: shape must be sphere or box, got 'ring'"),
    ],
)
def test_errors_are_one_line(clouds, step, message):
    with pytest.raises(ValueError, match=message) as caught:
        step(clouds)
    assert "\n" not in str(caught.value)


def test_dimensions_must_match():
    with pytest.raises(ValueError, match="rotate: positions have 2 dimensions, expected 3"):
        T.rotate(PointSet.from_points(torch.rand(4, 2)), degrees=10)

from __future__ import annotations

import pytest
import torch

from pointmix.ops.neighbors import ball_query, interpolate, knn, knn_reference, reference
from pointmix.ops.ragged import counts_to_ptr, ptr_to_batch


def queries(pos: torch.Tensor, ptr: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Every third point of each set and as many places near points; none for the last of several sets."""
    parts = []
    for lo, hi in zip(ptr[:-1].tolist(), ptr[1:].tolist(), strict=True):
        x = pos[lo:hi:3]
        parts.append(torch.cat([x, x + 0.3 * torch.randn_like(x) * pos.std()]))
    if len(parts) > 1:
        parts[-1] = pos[:0]
    return torch.cat(parts), counts_to_ptr(torch.tensor([len(p) for p in parts]))


def literal(pos, ptr, query_pos, query_ptr, k):
    """One query after the other, by Python's sort, which keeps the lower index first."""
    out = []
    for m, b in enumerate(ptr_to_batch(query_ptr, len(query_pos)).tolist()):
        x = pos[ptr[b] : ptr[b + 1]]
        d = torch.zeros(len(x), dtype=pos.dtype)
        for axis in range(x.shape[1]):
            d = d + (query_pos[m, axis] - x[:, axis]) ** 2
        near = sorted(range(len(x)), key=d.tolist().__getitem__)
        out.append([int(ptr[b]) + near[j % len(x)] if j >= len(x) else int(ptr[b]) + near[j] for j in range(k)])
    return out


@pytest.mark.parametrize("k", [1, 3, 24])
def test_every_backend_gives_the_neighbors_of_the_definition(backend, cloud, k):
    pos, ptr = cloud
    query_pos, query_ptr = queries(pos, ptr)
    index = knn(*(t.to(backend[1]) for t in (pos, ptr, query_pos, query_ptr)), k)
    assert index.shape == (len(query_pos), k) and index.dtype == torch.int64
    assert index.tolist() == literal(pos, ptr, query_pos, query_ptr, k)


@pytest.mark.parametrize("k", [1, 24])
def test_in_double_precision(cloud, k):
    pos, ptr = cloud[0].double(), cloud[1]
    query_pos, query_ptr = queries(pos, ptr)
    expected = literal(pos, ptr, query_pos, query_ptr, k)
    assert knn(pos, ptr, query_pos, query_ptr, k).tolist() == expected


def test_reference_form_in_chunks(monkeypatch, cloud):
    pos, ptr = cloud
    arguments = (pos, ptr, *queries(pos, ptr), 4)
    whole = knn_reference(*arguments)
    monkeypatch.setattr(reference, "CHUNK", 100)
    assert torch.equal(knn_reference(*arguments), whole)


def test_few_points_are_repeated_from_the_nearest_on(backend):
    pos = torch.tensor([[0.0], [1.0], [5.0], [7.0]], device=backend[1])
    ptr = torch.tensor([0, 3, 4], device=backend[1])
    query, query_ptr = torch.tensor([[4.0], [0.1]], device=backend[1]), torch.tensor([0, 1, 2], device=backend[1])
    assert knn(pos, ptr, query, query_ptr, 7).tolist() == [[2, 1, 0, 2, 1, 0, 2], [3] * 7]


def test_ties_go_to_the_lower_index(backend):
    pos = torch.zeros(200, 2, device=backend[1])
    ptr = torch.tensor([0, 200], device=backend[1])
    assert knn(pos, ptr, pos[:3], ptr[:2].clamp(max=3), 5).tolist() == [[0, 1, 2, 3, 4]] * 3


def test_a_set_does_not_depend_on_its_batch(backend):
    pos, ptr = torch.randn(40, 3, device=backend[1]), torch.tensor([0, 9, 40], device=backend[1])
    both = knn(pos, ptr, pos, ptr, 5)
    assert torch.equal(both[9:] - 9, knn(pos[9:], ptr[1:] - 9, pos[9:], ptr[1:] - 9, 5))


def test_no_queries():
    pos, ptr = torch.randn(4, 3), torch.tensor([0, 4])
    assert knn(pos, ptr, pos[:0], torch.tensor([0, 0]), 3).shape == (0, 3)
    assert interpolate(pos, pos, ptr, pos[:0], torch.tensor([0, 0])).shape == (0, 3)
    index, count = ball_query(pos, ptr, pos[:0], torch.tensor([0, 0]), 1.0, 3)
    assert index.shape == (0, 3) and count.shape == (0,)


@pytest.mark.parametrize("radius", [0.1, 0.7, 10.0])
def test_ball_query(cloud, radius):
    pos, ptr = cloud
    radius = radius * float(pos.std()) if len(pos) > 1 and pos.std() > 0 else radius
    query_pos, query_ptr = queries(pos, ptr)
    index, count = ball_query(pos, ptr, query_pos, query_ptr, radius, 6)
    near = literal(pos, ptr, query_pos, query_ptr, 6)
    for m, b in enumerate(ptr_to_batch(query_ptr, len(query_pos)).tolist()):
        x = pos[ptr[b] : ptr[b + 1]].double()
        d = (x - query_pos[m].double()).square().sum(1)
        sure, possible = ((d < (radius * s) ** 2).sum().clamp(max=6) for s in (1 - 1e-6, 1 + 1e-6))
        c = int(count[m])
        assert sure <= c <= possible
        assert index[m].tolist() == [near[m][j % max(c, 1)] for j in range(6)]


def test_ball_with_nothing_inside_gives_the_nearest_point():
    pos, ptr = torch.tensor([[0.0], [4.0]]), torch.tensor([0, 2])
    index, count = ball_query(pos, ptr, torch.tensor([[2.5]]), torch.tensor([0, 1]), 1.0, 3)
    assert index.tolist() == [[1, 1, 1]] and count.tolist() == [0]


def test_interpolation_against_the_definition():
    pos, ptr = torch.randn(30, 3, dtype=torch.float64), torch.tensor([0, 20, 30])
    feat = torch.randn(30, 4, dtype=torch.float64)
    query, query_ptr = torch.randn(9, 3, dtype=torch.float64), torch.tensor([0, 5, 9])
    out = interpolate(feat, pos, ptr, query, query_ptr)
    for m in range(9):
        mine = slice(0, 20) if m < 5 else slice(20, 30)
        d, near = (pos[mine] - query[m]).square().sum(1).topk(3, largest=False)
        expected = (feat[mine][near] / d[:, None]).sum(0) / (1 / d).sum()
        torch.testing.assert_close(out[m], expected)


def test_interpolation_at_a_point_and_where_points_coincide():
    pos, ptr = torch.tensor([[0.0], [1.0], [1.0], [9.0]]), torch.tensor([0, 4])
    feat = torch.tensor([[1.0], [2.0], [4.0], [100.0]])
    out = interpolate(feat, pos, ptr, torch.tensor([[0.0], [1.0]]), torch.tensor([0, 2]))
    torch.testing.assert_close(out, torch.tensor([[1.0], [3.0]]))


def test_interpolation_from_few_points():
    pos, ptr, feat = torch.tensor([[0.0], [3.0], [7.0]]), torch.tensor([0, 2, 3]), torch.tensor([[1.0], [5.0], [9.0]])
    out = interpolate(feat, pos, ptr, torch.tensor([[1.0], [2.0]]), torch.tensor([0, 1, 2]))
    torch.testing.assert_close(out, torch.tensor([[(1 + 5 / 4) / (1 + 1 / 4)], [9.0]]))


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_interpolation_does_not_depend_on_the_unit(scale):
    pos, ptr = torch.randn(30, 3), torch.tensor([0, 30])
    query, query_ptr, feat = torch.randn(8, 3), torch.tensor([0, 8]), torch.randn(30, 2)
    out = interpolate(feat, pos * scale, ptr, query * scale, query_ptr)
    torch.testing.assert_close(out, interpolate(feat, pos, ptr, query, query_ptr), rtol=1e-4, atol=1e-5)


def test_interpolation_has_gradients_for_features():
    pos, ptr = torch.randn(7, 2, dtype=torch.float64), torch.tensor([0, 5, 7])
    feat = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    query, query_ptr = torch.cat([pos[:2], torch.randn(3, 2, dtype=torch.float64)]), torch.tensor([0, 3, 5])
    assert torch.autograd.gradcheck(lambda f: interpolate(f, pos, ptr, query, query_ptr), feat)


POS, PTR = torch.randn(8, 3), torch.tensor([0, 3, 8])
BAD = [
    ((POS, PTR, POS, PTR, 0), "k must be an integer of at least 1, got 0"),
    ((POS, PTR, POS, PTR, 1.5), "k must be"),
    ((POS, PTR, POS, PTR, float("inf")), "k must be"),
    ((POS, PTR, POS, PTR, float("nan")), "k must be"),
    ((POS, PTR, POS[:, :2], PTR, 1), "must be alike, got D=3 .* D=2"),
    ((POS, PTR, POS.double(), PTR, 1), "must be alike"),
    ((POS, PTR, POS, torch.tensor([0, 8]), 1), "2 sets of points but 1 sets of queries"),
    ((POS, PTR[:2], POS, PTR, 1), "ptr must rise"),
    ((POS, torch.tensor([0, 0, 8]), POS, PTR, 1), "with a point in every set"),
    ((POS, PTR, POS, torch.tensor([0, 9, 8]), 1), "queries: ptr must rise"),
    ((POS * torch.nan, PTR, POS, PTR, 1), "must be finite"),
    ((POS, PTR, POS / 0, PTR, 1), "queries: positions must be finite"),
]


@pytest.mark.parametrize("arguments, message", BAD)
def test_what_does_not_fit_is_named(arguments, message):
    for op, name in (
        (knn, "knn"),
        (lambda *a: ball_query(*a[:4], 1.0, a[4]), "ball_query"),
        (lambda *a: interpolate(POS, *a), "interpolate"),
    ):
        with pytest.raises(ValueError, match=f"^{name}.*{message}") as error:
            op(*arguments)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("radius", [0, -1.0, float("nan"), float("inf")])
def test_bad_radius_is_named(radius):
    with pytest.raises(ValueError, match="^ball_query: radius must be positive"):
        ball_query(POS, PTR, POS, PTR, radius, 3)


def test_bad_features_are_named():
    with pytest.raises(ValueError, match=r"^interpolate: feat must be \(8, C\), got \(7, 3\)"):
        interpolate(POS[:7], POS, PTR, POS, PTR)

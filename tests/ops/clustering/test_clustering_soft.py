"""Soft clustering: each point spreads over all centers of its window."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from pointmix.ops.clustering import assign_soft, cluster_soft, cluster_soft_reference
from pointmix.ops.clustering.products import row_sum
from pointmix.ops.similarity import cosine, negative_distance

SIMILARITIES = {
    "cosine": cosine,
    "distance": partial(negative_distance, kappa=1.0),
    "curved": partial(negative_distance, kappa=10.0),
    "released": partial(negative_distance, kappa=0.1, released=True),
}
F64 = dict(dtype=torch.float64)


def case(*, windows=3, points=7, centers=4, heads=2, dim=5, rows=None, holes=False, gone=False, bias=None):
    """Arguments and options of the op, as in test_clustering; `bias` is its number of rows."""
    number = windows if rows is None else len(rows)
    q, v = (torch.randn(number, points, heads, dim, **F64) for _ in range(2))
    c, cv = (torch.randn(windows, centers, heads, dim, **F64) for _ in range(2))
    arguments = [q, v, c, cv, torch.tensor([1.7], **F64)]
    arguments += [] if bias is None else [torch.randn(bias, centers, heads, points, **F64)]
    options = {}
    if rows is not None:
        options["row_window"] = torch.tensor(rows)
    if holes:
        options["valid"] = torch.rand(number, points) < 0.6
        options["valid"][:, 0] = True
    if gone:
        options["center_valid"] = torch.rand(windows, centers) < 0.5
        options["center_valid"][:, -1] = True
    return [t.requires_grad_() for t in arguments], options


def literal(q, v, c, cv, alpha, bias=None, *, similarity, row_window=None, valid=None, center_valid=None):
    """The equations point by point: weights {(row, head, slot): (M,)} and values {(row, head, slot): (D,)}."""
    rows, points, heads, _ = q.shape
    windows = range(rows) if row_window is None else row_window.tolist()
    top, bottom, weights = cv.clone(), torch.ones(cv.shape[:3], **F64), {}
    for r, s in enumerate(windows):
        for n in range(points):
            for e in range(heads):
                if valid is not None and not valid[r, n]:
                    continue
                logit = alpha * similarity(c[s, :, e], q[r, n, e][None])[:, 0]  # (M,)
                if bias is not None:
                    logit = logit + bias[r % len(bias), :, e, n]
                exists = torch.ones_like(logit, dtype=torch.bool) if center_valid is None else center_valid[s]
                power = torch.where(exists, logit.exp(), 0)
                weights[r, e, n] = a = power / power.sum()
                top[s, :, e] += a[:, None] * v[r, n, e]
                bottom[s, :, e] += a
    g = top / bottom[..., None]
    return weights, {(r, e, n): a @ g[windows[r], :, e] for (r, e, n), a in weights.items()}


RAGGED = [0, 0, 1, 2, 2, 2]
CASES = {
    "even": {},
    "one window": dict(windows=1),
    "one point": dict(points=1),
    "one center": dict(centers=1),
    "one of everything": dict(windows=1, points=1, centers=1, heads=1, dim=2),
    "more centers than points": dict(points=2, centers=9),
    "ragged rows": dict(rows=RAGGED),
    "rows in any order": dict(rows=[2, 0, 1, 0]),
    "empty slots": dict(holes=True),
    "lost centers": dict(gone=True),
    "bias": dict(bias=3),
    "bias of one row": dict(bias=1),
    "bias of a set": dict(windows=6, bias=3),
    "bias of ragged rows": dict(rows=RAGGED, bias=6),
    "all at once": dict(rows=RAGGED, holes=True, gone=True, bias=6),
}


def real(out: torch.Tensor, options: dict) -> torch.Tensor:
    """The output where there are points."""
    return out if "valid" not in options else out[options["valid"]]


@pytest.mark.parametrize("op", [cluster_soft, cluster_soft_reference])
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("name", CASES)
def test_against_the_equations_point_by_point(name, similarity, op):
    arguments, options = case(**CASES[name])
    arguments = [t.detach() for t in arguments]
    weights, values = literal(*arguments, similarity=SIMILARITIES[similarity], **options)
    out = op(*arguments, similarity=SIMILARITIES[similarity], **options)
    assert out.shape == arguments[0].shape and len(values) > 0
    for (r, e, n), value in values.items():
        torch.testing.assert_close(out[r, n, e], value)
    q, _, c, _, *rest = arguments
    options.pop("valid", None)
    a = assign_soft(q, c, *rest, similarity=SIMILARITIES[similarity], **options)
    for (r, e, n), weight in weights.items():
        torch.testing.assert_close(a[r, e, :, n], weight)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("name", CASES)
def test_reference_form_has_the_same_values_and_gradients(name, similarity):
    arguments, options = case(**CASES[name])
    outs = [
        real(op(*arguments, similarity=SIMILARITIES[similarity], **options), options)
        for op in (cluster_soft, cluster_soft_reference)
    ]
    torch.testing.assert_close(*outs)
    probe = torch.randn_like(outs[0])
    gradients = [torch.autograd.grad((out * probe).sum(), arguments) for out in outs]
    for fast, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, reference)
    used = [g.abs().max() > 0 for g in gradients[0]]
    assert all(used) or name in ("one center", "one of everything")  # where the weight is one whatever the logit


@pytest.mark.parametrize("op", [cluster_soft, cluster_soft_reference])
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("name", ["bias", "all at once"])
def test_gradients_against_differences(name, similarity, op):
    arguments, options = case(**CASES[name] | dict(points=3, dim=2))

    def run(*a):
        return real(op(*a, similarity=SIMILARITIES[similarity], **options), options)

    assert torch.autograd.gradcheck(run, arguments, fast_mode=True)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_weights_sum_to_one_over_the_centers_that_exist(dtype, similarity):
    (q, _, c, _, alpha, bias), options = case(**CASES["all at once"])
    q, c, alpha, bias = (t.detach().to(dtype) for t in (q, c, alpha, bias))
    del options["valid"]
    a = assign_soft(q, c, alpha, bias, similarity=SIMILARITIES[similarity], **options)
    assert (a >= 0).all()
    torch.testing.assert_close(a.sum(2).double(), torch.ones(6, 2, 7, **F64), rtol=0, atol=4 * torch.finfo(dtype).eps)
    lost = ~options["center_valid"][options["row_window"]]  # (R, M)
    assert (a.transpose(1, 2)[lost] == 0).all() and (a.transpose(1, 2)[~lost] > 0).all()


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_without_scale_and_bias_centers_share_alike(similarity):
    """Then every value is the mean of centers and points: g = (cv + V / M) / (1 + N / M), o = mean of g."""
    (q, v, c, cv, alpha), _ = case()
    alpha = torch.zeros_like(alpha)
    a = assign_soft(q, c, alpha, torch.zeros(1, 4, 2, 7, **F64), similarity=SIMILARITIES[similarity])
    torch.testing.assert_close(a, torch.full_like(a, 1 / 4))
    out = cluster_soft(q, v, c, cv, alpha, similarity=SIMILARITIES[similarity])
    g = (cv + v.sum(1, keepdim=True) / 4) / (1 + 7 / 4)
    torch.testing.assert_close(out, g.mean(1, keepdim=True).expand_as(out))


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_one_center_takes_everything(similarity):
    """With the mean as value of the center, the mean comes back, whatever the similarity."""
    (q, v, c, _, alpha), _ = case(centers=1)
    mean = v.mean(1, keepdim=True)
    out = cluster_soft(q, v, c, mean, alpha, similarity=SIMILARITIES[similarity])
    torch.testing.assert_close(out, mean.expand_as(out))


@pytest.mark.parametrize("op", [cluster_soft, cluster_soft_reference])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_what_empty_slots_and_lost_centers_hold_does_not_matter(similarity, op):
    arguments, options = case(**CASES["all at once"])
    options["similarity"] = SIMILARITIES[similarity]
    out = real(op(*arguments, **options), options)
    out.square().sum().backward()
    q, v, c, cv = (t.grad for t in arguments[:4])
    assert (q[~options["valid"]] == 0).all() and (v[~options["valid"]] == 0).all()
    assert (c[~options["center_valid"]] == 0).all() and (cv[~options["center_valid"]] == 0).all()
    q, v, c, cv = (t.detach().clone() for t in arguments[:4])
    for t, exists in [(q, "valid"), (v, "valid"), (c, "center_valid"), (cv, "center_valid")]:
        t[~options[exists]] = 123.0
    torch.testing.assert_close(real(op(q, v, c, cv, *arguments[4:], **options), options), out)


@pytest.mark.parametrize("op", [cluster_soft, cluster_soft_reference])
def test_splitting_a_window_into_rows_changes_nothing(op):
    (q, v, c, cv, alpha, bias), _ = case(windows=2, points=8, bias=2)
    whole = op(q, v, c, cv, alpha, bias)
    q, v = (t.reshape(4, 4, *t.shape[2:]) for t in (q, v))
    bias = bias.unflatten(-1, (2, 4)).movedim(-2, 1).flatten(0, 1)  # (S, M, E, L) to (R, M, E, L / 2)
    rows = op(q, v, c, cv, alpha, bias, row_window=torch.tensor([0, 0, 1, 1]))
    torch.testing.assert_close(rows.reshape(whole.shape), whole)


@pytest.mark.parametrize("op", [cluster_soft, cluster_soft_reference])
def test_a_bias_of_fewer_rows_repeats(op):
    arguments, _ = case(windows=6, bias=3)
    *rest, bias = arguments
    torch.testing.assert_close(op(*rest, bias), op(*rest, bias.repeat(2, 1, 1, 1)))


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_points_join_centers_that_are_alike(similarity):
    """A point weighs most at the center it lies on, with either similarity, and more so for a larger scale."""
    c = torch.eye(4, **F64)[None, :, None] * 0.7  # (1, M, 1, D)
    small, large = (
        assign_soft(c, c, torch.tensor([alpha], **F64), similarity=SIMILARITIES[similarity])[0, 0]
        for alpha in (1.0, 5.0)
    )
    assert torch.equal(small.argmax(0)[1:], torch.arange(1, 4))  # the released lift knows no first direction
    assert (large.diag()[1:] > small.diag()[1:]).all()


@pytest.mark.parametrize("op", [cluster_soft, cluster_soft_reference])
def test_no_windows(op):
    arguments, options = case(windows=0)
    assert op(*arguments, **options).shape == (0, 7, 2, 5)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_low_precision_is_close(dtype, similarity):
    """Soft weights do not flip: everything is close, and gradients are finite."""
    arguments, _ = case(windows=4, points=30, bias=4)
    low = [t.detach().to(dtype).requires_grad_() for t in arguments]
    expected = cluster_soft(*(t.double() for t in low), similarity=SIMILARITIES[similarity])
    for op in (cluster_soft, cluster_soft_reference):
        out = op(*low, similarity=SIMILARITIES[similarity])
        assert (out.double() - expected).abs().max() < 8 * torch.finfo(dtype).eps * expected.abs().max()
        gradients = torch.autograd.grad(out.float().square().sum(), low)
        assert all(g.isfinite().all() for g in gradients)
    assert cluster_soft(*low, similarity=SIMILARITIES[similarity]).dtype == dtype


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_under_autocast_logits_stay_in_single_precision(similarity):
    arguments, _ = case(windows=4, points=30, bias=4)
    single = [t.detach().float() for t in arguments]
    expected = cluster_soft(*single, similarity=SIMILARITIES[similarity])
    with torch.autocast("cpu", torch.bfloat16):
        out = cluster_soft(*single, similarity=SIMILARITIES[similarity])
    torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("length", [0.0, 1e-15, 1e-6, 1e4])
def test_vectors_of_any_length(length, similarity):
    """Zero vectors are like nothing, or lie at the origin together; nothing is NaN, gradients included."""
    arguments, _ = case(bias=1)
    single = [t.detach().float() for t in arguments]
    q, v, c, cv, *rest = [t.requires_grad_() for t in (single[0] * length, single[1], single[2] * length, *single[3:])]
    out = cluster_soft(q, v, c, cv, *rest, similarity=SIMILARITIES[similarity])
    gradients = torch.autograd.grad(out.square().sum(), [q, v, c, cv, *rest])
    assert out.isfinite().all() and all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_points_that_are_their_centers(similarity):
    (q, v, *_, alpha), _ = case()
    q, v, alpha = (t.detach().float().requires_grad_() for t in (q, v, alpha))
    out = cluster_soft(q, v, q, v, alpha, similarity=SIMILARITIES[similarity])
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.square().sum(), (q, v, alpha)))


def test_row_sum():
    x = torch.randn(3, 2, 4, 5, **F64, requires_grad=True)
    torch.testing.assert_close(row_sum(x), x.sum(-1))
    assert torch.autograd.gradcheck(row_sum, (x,), fast_mode=True)


# ---- memory ---------------------------------------------------------------------------------------------------------


def elements(sizes, op, similarity: str, windows: int) -> list[int]:
    """Of everything that two heads of 64 points, 16 centers and 24 channels compute, gradients included."""
    arguments, _ = case(windows=windows, points=64, centers=16, dim=24, bias=1)
    with sizes() as seen:
        torch.autograd.grad(op(*arguments, similarity=SIMILARITIES[similarity]).sum(), arguments)
    return seen.elements


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_no_tensor_of_points_centers_and_channels(similarity, sizes):
    """The largest holds queries and their times, or weights; that of the reference form all three."""
    assert max(elements(sizes, cluster_soft, similarity, 3)) <= 3 * 2 * 64 * (24 + 1)
    assert max(elements(sizes, cluster_soft_reference, similarity, 3)) == 3 * 2 * 64 * 16 * 24


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_memory_is_linear_in_the_number_of_windows(similarity, sizes):
    one, four, sixteen = (elements(sizes, cluster_soft, similarity, windows) for windows in (4, 16, 64))
    assert max(four) == 4 * max(one) and max(sixteen) == 16 * max(one)
    assert sum(four) <= 4 * sum(one) and sum(sixteen) <= 16 * sum(one)

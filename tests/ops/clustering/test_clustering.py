from __future__ import annotations

from functools import partial

import pytest
import torch

from pointmix.ops.clustering import assign_hard, cluster_hard, cluster_hard_reference, update_centers


def case(*, windows=3, points=7, centers=4, heads=2, dim=5, rows=None, holes=False, gone=False):
    """Arguments and options of the op. `rows` names the window of each row, `holes` leaves some slots without a
    point, `gone` some windows without some of their centers."""
    number = windows if rows is None else len(rows)
    q, v = (torch.randn(number, points, heads, dim, dtype=torch.float64) for _ in range(2))
    c, cv = (torch.randn(windows, centers, heads, dim, dtype=torch.float64) for _ in range(2))
    alpha, beta = torch.tensor([1.7], dtype=torch.float64), torch.tensor([-0.3], dtype=torch.float64)
    options = {}
    if rows is not None:
        options["row_window"] = torch.tensor(rows)
    if holes:
        options["valid"] = torch.rand(number, points) < 0.6
        options["valid"][:, 0] = True
    if gone:
        options["center_valid"] = torch.rand(windows, centers) < 0.5
        options["center_valid"][:, -1] = True
    return [t.requires_grad_() for t in (q, v, c, cv, alpha, beta)], options


def literal(
    q, v, c, cv, alpha, beta, *,
    row_window=None, valid=None, center_valid=None, denominator="weights", unweighted=False,
):  # fmt: skip
    """The equations point by point, and what each point was given: {(row, head, slot): (center, weight, value)}."""
    rows, points, heads, _ = q.shape
    windows = range(rows) if row_window is None else row_window.tolist()
    top, bottom, chosen = cv.clone(), torch.ones(cv.shape[:3], dtype=q.dtype), {}
    for r, s in enumerate(windows):
        for n in range(points):
            for e in range(heads):
                if valid is not None and not valid[r, n]:
                    continue
                best, center = -2.0, None
                for m in range(c.shape[1]):
                    if center_valid is not None and not center_valid[s, m]:
                        continue
                    cos = (c[s, m, e] @ q[r, n, e] / (c[s, m, e].norm() * q[r, n, e].norm())).item()
                    weight = torch.sigmoid(alpha * cos + beta).item()
                    if weight > best:
                        best, center = weight, m
                chosen[r, e, n] = (s, center, best)
                entry = 1 if unweighted else best
                top[s, center, e] += entry * v[r, n, e]
                bottom[s, center, e] += entry if denominator == "weights" else 1
    g = top / bottom[..., None]
    return {key: (m, weight, weight * g[s, m, key[1]]) for key, (s, m, weight) in chosen.items()}


RULES = [dict(denominator="weights"), dict(denominator="count"), dict(unweighted=True)]
CASES = {
    "even": {},
    "one window": dict(windows=1),
    "one point": dict(points=1),
    "one center": dict(centers=1),
    "one of everything": dict(windows=1, points=1, centers=1, heads=1, dim=1),
    "more centers than points": dict(points=2, centers=9),
    "ragged rows": dict(rows=[0, 0, 1, 2, 2, 2]),
    "rows in any order": dict(rows=[2, 0, 1, 0]),
    "empty slots": dict(holes=True),
    "lost centers": dict(gone=True),
    "all at once": dict(rows=[0, 0, 1, 2, 2, 2], holes=True, gone=True),
}


def real(out: torch.Tensor, options: dict) -> torch.Tensor:
    """The output where there are points."""
    return out if "valid" not in options else out[options["valid"]]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("op", [cluster_hard, cluster_hard_reference])
@pytest.mark.parametrize("name", CASES)
def test_against_the_equations_point_by_point(name, op, rule):
    arguments, options = case(**CASES[name])
    arguments = [t.detach() for t in arguments]
    expected = literal(*arguments, **options, **rule)
    out = op(*arguments, **options, **rule)
    center, weight = assign_hard(
        arguments[0], arguments[2], *arguments[4:], **{k: options[k] for k in options if k != "valid"}
    )
    assert out.shape == arguments[0].shape and len(expected) > 0
    for (r, e, n), (m, w, value) in expected.items():
        assert center[r, e, 0, n] == m
        torch.testing.assert_close(weight[r, e, 0, n].item(), w)
        torch.testing.assert_close(out[r, n, e], value)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_reference_form_has_the_same_values_and_gradients(name, rule):
    arguments, options = case(**CASES[name])
    probe, gradients = None, []
    for op in (cluster_hard, cluster_hard_reference):
        out = real(op(*arguments, **options, **rule), options)
        probe = torch.randn_like(out) if probe is None else probe
        gradients.append(torch.autograd.grad((out * probe).sum(), arguments))
    for fast, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, reference)
    assert all(g.abs().max() > 0 for g in gradients[0][1:2])


@pytest.mark.parametrize("op", [cluster_hard, cluster_hard_reference])
@pytest.mark.parametrize("name", ["even", "all at once"])
def test_gradients_against_differences(name, op):
    arguments, options = case(**CASES[name] | dict(points=3, dim=2))
    for rule in RULES:
        run = partial(op, **options, **rule)
        assert torch.autograd.gradcheck(lambda *a, run=run: real(run(*a), options), arguments, fast_mode=True)


@pytest.mark.parametrize("op", [cluster_hard, cluster_hard_reference])
def test_no_gradient_for_what_does_not_take_part(op):
    arguments, options = case(**CASES["all at once"])
    real(op(*arguments, **options), options).square().sum().backward()
    q, v, c, cv = (t.grad for t in arguments[:4])
    assert (q[~options["valid"]] == 0).all() and (v[~options["valid"]] == 0).all()
    assert (c[~options["center_valid"]] == 0).all() and (cv[~options["center_valid"]] == 0).all()


@pytest.mark.parametrize("op", [cluster_hard, cluster_hard_reference])
def test_what_empty_slots_and_lost_centers_hold_does_not_matter(op):
    arguments, options = case(**CASES["all at once"])
    out = op(*arguments, **options)
    q, v, c, cv = (t.detach().clone() for t in arguments[:4])
    for t, exists in [(q, "valid"), (v, "valid"), (c, "center_valid"), (cv, "center_valid")]:
        t[~options[exists]] = 123.0
    again = op(q, v, c, cv, *arguments[4:], **options)
    torch.testing.assert_close(real(again, options), real(out, options))


@pytest.mark.parametrize("op", [cluster_hard, cluster_hard_reference])
def test_splitting_a_window_into_rows_changes_nothing(op):
    (q, v, c, cv, alpha, beta), _ = case(windows=2, points=8)
    whole = op(q, v, c, cv, alpha, beta)
    q, v = (t.reshape(4, 4, *t.shape[2:]) for t in (q, v))
    rows = op(q, v, c, cv, alpha, beta, row_window=torch.tensor([0, 0, 1, 1]))
    torch.testing.assert_close(rows.reshape(whole.shape), whole)


@pytest.mark.parametrize("centers", [2, 9, 49])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_of_equal_similarities_the_first_is_taken(dtype, centers):
    q, c = (2.0 ** torch.randint(-3, 4, (2, n, 3, 1)).to(dtype) for n in (33, centers))  # every cosine is 1, exactly
    alpha, beta = torch.ones(1, dtype=dtype), torch.zeros(1, dtype=dtype)
    assert (assign_hard(q, c, alpha, beta)[0] == 0).all()
    lost = torch.ones(2, centers, dtype=torch.bool)
    lost[:, 0] = False
    assert (assign_hard(q, c, alpha, beta, center_valid=lost)[0] == 1).all()
    torch.testing.assert_close(*(op(q, q, c, c, alpha, beta) for op in (cluster_hard, cluster_hard_reference)))


def test_count_divides_by_the_number_of_points():
    q = v = torch.ones(1, 3, 1, 1, dtype=torch.float64)
    c, cv = torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.full((1, 1, 1, 1), 5.0, dtype=torch.float64)
    alpha, beta = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)  # every weight is 1/2
    for op in (cluster_hard, cluster_hard_reference):
        by_weights, by_count = (op(q, v, c, cv, alpha, beta, denominator=d) for d in ("weights", "count"))
        torch.testing.assert_close(by_weights, torch.full_like(q, 0.5 * (5 + 1.5) / (1 + 1.5)))
        torch.testing.assert_close(by_count, torch.full_like(q, 0.5 * (5 + 1.5) / (1 + 3)))
        for denominator in ("weights", "count"):
            unweighted = op(q, v, c, cv, alpha, beta, denominator=denominator, unweighted=True)
            torch.testing.assert_close(unweighted, torch.full_like(q, 0.5 * (5 + 3) / (1 + 3)))


@pytest.mark.parametrize("op", [cluster_hard, cluster_hard_reference])
def test_no_windows(op):
    arguments, options = case(windows=0)
    assert op(*arguments, **options).shape == (0, 7, 2, 5)


@pytest.mark.parametrize("op", [cluster_hard, cluster_hard_reference])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_low_precision_is_close(op, dtype):
    arguments, _ = case(windows=4, points=30)
    (q, v, c, cv, alpha, beta) = (t.detach() for t in arguments)
    low = op(*(t.to(dtype) for t in (q, v, c, cv, alpha, beta)))
    assert low.dtype == dtype
    # a hard assignment may flip between two near centers: judge by the median
    assert (low.double() - op(q, v, c, cv, alpha, beta)).abs().median() < 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_centers_move_to_the_aggregate_of_their_queries(name, rule):
    (q, v, c, cv, alpha, beta), options = case(**CASES[name])
    moved = update_centers(q, c, alpha, beta, **options, **rule)
    assert moved.shape == c.shape
    expected = c.detach().clone()
    bottom = torch.ones(c.shape[:3], dtype=c.dtype)
    for (r, e, n), (m, w, _) in literal(*(t.detach() for t in (q, q, c, c, alpha, beta)), **options).items():
        s = options["row_window"][r] if "row_window" in options else r
        entry = 1 if "unweighted" in rule else w
        expected[s, m, e] += entry * q[r, n, e].detach()
        bottom[s, m, e] += w if rule.get("denominator") == "weights" else 1
    torch.testing.assert_close(moved, expected / bottom[..., None])


def test_moving_centers_has_gradients():
    (q, _, c, _, alpha, beta), options = case(**CASES["all at once"] | dict(points=3, dim=2))
    assert torch.autograd.gradcheck(lambda *a: update_centers(*a, **options), (q, c, alpha, beta), fast_mode=True)

"""The clustering kernel against its reference forms; on the CPU in Triton's interpreter, so all is small."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.autograd import forward_ad

from pointmix.ops import use_backend
from pointmix.ops.clustering import (
    cluster_hard,
    cluster_hard_reference,
    cluster_soft,
    cluster_soft_reference,
    fused,
)
from pointmix.ops.similarity import negative_distance

pytest.importorskip("triton", reason="triton is not installed")
kernel = pytest.importorskip("pointmix.ops.clustering.triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
F64 = dict(dtype=torch.float64, device=DEVICE)
RULES = [dict(denominator="weights"), dict(denominator="count"), dict(unweighted=True)]
CASES = {
    "even": {},
    "one of everything": dict(windows=1, points=1, centers=1, heads=1, dim=2),
    "many points": dict(windows=1, points=70, heads=1),
    "more centers than points": dict(windows=1, points=2, centers=18, heads=1, dim=20),
    "empty slots and lost centers": dict(holes=True, heads=1),
}


def case(*, windows=2, points=5, centers=3, heads=2, dim=6, holes=False, **dtype):
    """Queries and values of points and centers, alpha and beta; options of the op."""
    dtype = F64 | dtype
    q, v = (torch.randn(windows, points, heads, dim, **dtype) for _ in range(2))
    c, cv = (torch.randn(windows, centers, heads, dim, **dtype) for _ in range(2))
    arguments = [q, v, c, cv, torch.tensor([1.7], **dtype), torch.tensor([-0.3], **dtype)]
    options = {}
    if holes:
        options["valid"] = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 1, 1]], device=DEVICE).bool()
        options["center_valid"] = torch.tensor([[1, 0, 1], [0, 1, 1]], device=DEVICE).bool()
    return [t.requires_grad_() for t in arguments], options


def soft(op, similarity: str, **options):
    """The op of a list of tensors: q, v, c, cv, alpha, kappa, bias if there is one."""

    def run(q, v, c, cv, alpha, kappa, bias=None):
        rule = {} if similarity == "cosine" else {
            "similarity": partial(negative_distance, kappa=kappa, released=similarity == "released")
        }  # fmt: skip
        return op(q, v, c, cv, alpha, bias, **rule, **options)

    return run


def check(op, reference, arguments, valid=None, **close) -> None:
    """Same values where there are points, same gradients."""
    outs = [t if valid is None else t[valid] for t in (op(*arguments), reference(*arguments))]
    torch.testing.assert_close(*outs, **close)
    probe = torch.randn_like(outs[0])
    gradients = [torch.autograd.grad((o * probe).sum(), arguments, allow_unused=True) for o in outs]
    for found, expected in zip(*gradients, strict=True):
        assert (found is None) == (expected is None)
        if found is not None:
            torch.testing.assert_close(found, expected, **close)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_hard(name, rule):
    arguments, options = case(**CASES[name])
    check(
        partial(kernel.cluster_hard, **options, **rule), partial(cluster_hard_reference, **options, **rule), arguments
    )


@pytest.mark.parametrize("similarity", ["cosine", "distance", "released"])
@pytest.mark.parametrize("name", [*CASES, "bias of a set"])
def test_soft(name, similarity):
    arguments, options = case(**CASES.get(name, dict(windows=4, heads=1)))
    arguments[5] = torch.tensor(1.3, **F64, requires_grad=True)  # kappa
    if name != "even":
        q, _, c, *_ = arguments
        rows = 2 if name == "bias of a set" else len(q)
        arguments.append(torch.randn(rows, c.shape[1], q.shape[2], q.shape[1], **F64, requires_grad=True))
    check(*(soft(op, similarity, **options) for op in (kernel.cluster_soft, cluster_soft_reference)), arguments)


@pytest.mark.parametrize("length", [0.0, 1e-14, 1e-5, 0.999, 3.0, 1e4])
@pytest.mark.parametrize("similarity", ["cosine", "distance", "released"])
def test_vectors_of_any_length(similarity, length):
    """Where clipping and lifting change their form, and curvatures that let the lift reach its bound."""
    arguments, _ = case(windows=1, heads=1, points=3)
    unit = torch.nn.functional.normalize(arguments[0].detach(), dim=-1)
    arguments[0] = (unit * length).requires_grad_()
    arguments[5] = torch.tensor(200.0 if length == 3 else 0.7, **F64, requires_grad=True)
    close = dict(rtol=1e-6, atol=1e-9) if length else dict(rtol=1e-6, atol=1e-4)
    check(*(soft(op, similarity) for op in (kernel.cluster_soft, cluster_soft_reference)), arguments, **close)


COUNTS = [3, 1, 0, 40]


def by_window(op):
    """The op on windows of COUNTS points, one by one; the bias is (M, E, N)."""

    def run(q, v, c, cv, alpha, last, bias=None):
        parts, begin = [], 0
        for s, count in enumerate(COUNTS):
            places, one = slice(begin, begin + count), slice(s, s + 1)
            rest = [] if bias is None else [bias[None, ..., places]]
            if count:
                parts.append(op(q[None, places], v[None, places], c[one], cv[one], alpha, last, *rest)[0])
            begin += count
        return torch.cat(parts)

    return run


def ragged(**dtype):
    (q, v, c, cv, alpha, beta), _ = case(windows=4, points=sum(COUNTS), heads=1, **dtype)
    q, v = (t.detach()[0].requires_grad_() for t in (q, v))
    return [q, v, c, cv, alpha, beta], torch.tensor([0, 3, 4, 4, 44], device=DEVICE)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_hard_in_windows_by_offsets(rule):
    arguments, ptr = ragged()
    check(partial(kernel.cluster_hard, ptr=ptr, **rule), by_window(partial(cluster_hard_reference, **rule)), arguments)


@pytest.mark.parametrize("similarity", ["cosine", "distance"])
def test_soft_in_windows_by_offsets(similarity):
    arguments, ptr = ragged()
    arguments[5] = torch.tensor(1.3, **F64, requires_grad=True)
    arguments.append(torch.randn(3, 1, sum(COUNTS), **F64, requires_grad=True))
    check(
        soft(kernel.cluster_soft, similarity, ptr=ptr), by_window(soft(cluster_soft_reference, similarity)), arguments
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_precisions(dtype):
    """Against float64 of the same numbers; sums are float32, so what comes back is off by its own rounding."""
    arguments, options = case(holes=True, heads=1, dtype=dtype)
    eps = torch.finfo(dtype).eps
    references = [
        (partial(kernel.cluster_hard, **options), partial(cluster_hard_reference, **options)),
        tuple(soft(op, "distance", **options) for op in (kernel.cluster_soft, cluster_soft_reference)),
    ]
    for op, reference in references:
        if op is references[1][0]:
            arguments[5] = torch.tensor(1.3, device=DEVICE, requires_grad=True)
        exact = [t.detach().double().requires_grad_() for t in arguments]
        out, expected = op(*arguments), reference(*exact)
        assert out.dtype == dtype
        torch.testing.assert_close(out.double(), expected, rtol=8 * eps, atol=8 * eps)
        probe = torch.randn_like(out)
        found = torch.autograd.grad((out * probe).sum(), arguments)
        wanted = torch.autograd.grad((expected * probe).sum(), exact)
        for f, w, argument in zip(found, wanted, arguments, strict=True):
            assert f.dtype == argument.dtype
            torch.testing.assert_close(f.double(), w, rtol=16 * eps, atol=16 * eps * float(w.abs().max()))


def test_autocast_changes_nothing_and_dtypes_may_be_mixed():
    (q, v, c, cv, alpha, beta), _ = case(windows=1, heads=1, dtype=torch.float32)
    expected = kernel.cluster_hard(q, v, c, cv, alpha, beta)
    with torch.autocast(DEVICE, torch.bfloat16):
        assert torch.equal(kernel.cluster_hard(q, v, c, cv, alpha, beta), expected)
    low = [q.bfloat16(), v.bfloat16(), c, cv, alpha, beta]
    out = kernel.cluster_hard(*low)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.05)
    assert [t.dtype for t in torch.autograd.grad(out.sum(), low)] == [t.dtype for t in low]


@pytest.mark.filterwarnings("ignore:invalid value")  # NumPy's, in the interpreter
@pytest.mark.parametrize("name", ["hard", "soft"])
def test_what_is_not_a_number_stays_in_its_set_and_is_seen_there(name):
    given, _ = case(heads=1, points=3)
    if name == "soft":
        given[5] = torch.tensor(1.3, **F64)  # kappa
    op = kernel.cluster_hard if name == "hard" else soft(kernel.cluster_soft, "distance")
    expected = op(*given)
    wanted = torch.autograd.grad(expected.sum(), given[:4])
    for which in range(4):
        broken = [t.detach().clone() for t in given]
        broken[which][0, 1] = torch.nan
        broken = [t.requires_grad_() for t in broken]
        out = op(*broken)
        assert torch.equal(out[1], expected[1]) and out[0].isnan().any()
        found = torch.autograd.grad(out.sum(), broken[:4])
        assert all(torch.equal(f[1], w[1]) for f, w in zip(found, wanted, strict=True))


def test_of_equal_similarities_the_first_is_taken():
    q, c = (2.0 ** torch.randint(-3, 4, (1, n, 1, 1), device=DEVICE).float() for n in (5, 9))  # every cosine is 1
    cv = torch.arange(9.0, device=DEVICE).view(1, 9, 1, 1)
    alpha, beta = torch.ones(1, device=DEVICE), torch.zeros(1, device=DEVICE)
    weight = torch.sigmoid(alpha)
    for lost in (0, 4):
        exists = torch.arange(9, device=DEVICE)[None] >= lost
        out = kernel.cluster_hard(q, 0 * q, c, cv, alpha, beta, center_valid=exists)
        torch.testing.assert_close(out, (weight * lost / (1 + 5 * weight)).expand_as(out))


def test_vectors_are_read_where_they_lie():
    (q, v, c, cv, alpha, beta), _ = case(windows=1)
    expected = kernel.cluster_hard(q, v, c, cv, alpha, beta)
    qv, ccv = (torch.stack(pair, 2).detach() for pair in ((q, v), (c, cv)))  # (S, L, 2, E, D)
    parts = [*qv.unbind(2), *ccv.unbind(2)]
    from pointmix.ops.clustering.triton.operators import contiguous_channels

    assert all(contiguous_channels(t) is t and not t.is_contiguous() for t in parts)
    assert torch.equal(kernel.cluster_hard(*parts, alpha, beta), expected)
    assert torch.equal(kernel.cluster_hard(*(t.mT.contiguous().mT for t in (q, v, c, cv)), alpha, beta), expected)


def test_runs_do_not_differ():
    arguments, _ = case(windows=1, points=70, heads=1, dtype=torch.float32)
    found = [torch.autograd.grad(kernel.cluster_hard(*arguments).square().sum(), arguments) for _ in range(2)]
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_no_windows_and_no_points():
    for sizes in (dict(windows=0), dict(points=0)):
        arguments, _ = case(**sizes)
        out = kernel.cluster_hard(*arguments)
        assert out.shape == arguments[0].shape
        found = torch.autograd.grad(out.sum(), arguments)
        assert all(f.shape == a.shape and (f == 0).all() for f, a in zip(found, arguments, strict=True))


# ---- as operators of torch ------------------------------------------------------------------------------------------


def test_opcheck():
    arguments, options = case(windows=2, heads=1, holes=True, dtype=torch.float32)
    hard = (*arguments, None, options["valid"], options["center_valid"], True, False)
    torch.library.opcheck(torch.ops.pointmix.cluster_hard.default, hard)
    (q, v, *rest, beta), ptr = ragged(dtype=torch.float32)
    exists = torch.arange(3, device=DEVICE) < torch.tensor([[3], [1], [2], [3]], device=DEVICE)
    torch.library.opcheck(
        torch.ops.pointmix.cluster_hard.default, (q[None], v[None], *rest, beta, ptr, None, exists, False, False)
    )
    bias = torch.randn(1, 3, 1, 44, device=DEVICE, requires_grad=True)
    kappa = torch.tensor(1.3, device=DEVICE, requires_grad=True)
    given = (q[None], v[None], *rest, bias, kappa, ptr, None, None, False)
    torch.library.opcheck(torch.ops.pointmix.cluster_soft.default, given)


def test_gradients_against_differences():
    arguments, options = case(points=3, heads=1, dim=2)
    assert torch.autograd.gradcheck(partial(kernel.cluster_hard, denominator="count"), arguments, fast_mode=True)
    arguments[5] = torch.tensor(1.3, **F64, requires_grad=True)
    arguments.append(torch.randn(1, 3, 1, 3, **F64, requires_grad=True))
    assert torch.autograd.gradcheck(soft(kernel.cluster_soft, "distance"), arguments, fast_mode=True)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_in_one_graph(backend):
    arguments, _ = case(windows=2, heads=1, points=3)
    kappa = torch.tensor(1.3, **F64, requires_grad=True)

    def both(q, v, c, cv, alpha, beta, kappa):
        hard = cluster_hard(q, v, c, cv, alpha, beta)
        return hard + cluster_soft(q, v, c, cv, alpha, similarity=partial(negative_distance, kappa=kappa))

    with use_backend("triton"):
        compiled = torch.compile(both, fullgraph=True, backend=backend)
        check(compiled, both, [*arguments, kappa])
    torch.compiler.reset()


def test_forward_mode_derivatives_are_left_to_products(calls):
    arguments, _ = case(windows=1, heads=1, points=2)
    q, v, *rest = (t.detach() for t in arguments)
    with forward_ad.dual_level(), use_backend("triton"):
        out = cluster_hard(q, forward_ad.make_dual(v, torch.ones_like(v)), *rest)
        assert forward_ad.unpack_dual(out).tangent.abs().sum() > 0
        out = cluster_soft(q, forward_ad.make_dual(v, torch.ones_like(v)), *rest[:3])
        assert forward_ad.unpack_dual(out).tangent.abs().sum() > 0
    assert not calls


def test_exported():
    arguments, _ = case(windows=1, heads=1, points=3)
    arguments = tuple(t.detach() for t in arguments)

    class Hard(torch.nn.Module):
        def forward(self, *given):
            return cluster_hard(*given)

    with use_backend("triton"):
        program = torch.export.export(Hard(), arguments)
    assert torch.ops.pointmix.cluster_hard.default in [node.target for node in program.graph.nodes]
    torch.testing.assert_close(program.module()(*arguments), cluster_hard_reference(*arguments))


# ---- where it is taken ----------------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch):
    """The kinds of the kernels that ran, the forward ones."""
    from pointmix.ops.clustering.triton import operators as ops

    seen, run = [], ops.run
    monkeypatch.setattr(ops, "run", lambda *a, **rules: seen.append(rules["KIND"]) or run(*a, **rules))
    return seen


def test_only_on_request_and_only_where_it_fits(calls, monkeypatch):
    arguments, _ = case(windows=1, heads=1, points=2)
    wide = case(windows=1, heads=1, points=2, dim=65)[0]
    twice = [torch.cat([t, t]) for t in arguments[:2]] + arguments[2:]
    cluster_hard(*arguments)
    with use_backend("triton"):
        cluster_hard(*wide)
        cluster_hard(*twice, row_window=torch.zeros(2, dtype=torch.int64, device=DEVICE))
        cluster_soft(*arguments[:5], similarity=lambda c, q: c @ q.mT)
        for op, given in ((cluster_hard, wide), (cluster_soft, wide[:5])):
            with pytest.raises(ValueError, match=f"^{op.__name__}: only a fused kernel takes windows by ptr"):
                op(*(t[0] for t in given[:2]), *given[2:], ptr=torch.tensor([0, 2], device=DEVICE))
        assert not calls
        cluster_hard(*arguments)
        cluster_soft(*arguments[:5])
        assert calls == ["hard", "cosine"]
        if DEVICE == "cpu":
            monkeypatch.delenv("TRITON_INTERPRET")
            with pytest.raises(ValueError, match="^backend 'triton' runs on cuda, but the input is on cpu$"):
                cluster_hard(*arguments)
    with use_backend("torch"):
        cluster_hard(*arguments)
    assert len(calls) == 2


def test_what_fits():
    half, single, double = (
        torch.empty(0, dtype=t, device=DEVICE) for t in (torch.bfloat16, torch.float32, torch.float64)
    )
    with use_backend("triton"):
        assert fused("cluster_hard", half, 64, 64) and not fused("cluster_hard", half, 65, 64)
        assert fused("cluster_soft", single, 49, 32) and not fused("cluster_soft", single, 49, 33)
        assert fused("cluster_soft", double, 4, 64) and not fused("cluster_soft", double, 17, 64)
    assert not fused("cluster_hard", half, 4, 24)


def test_an_unknown_similarity():
    arguments, _ = case(windows=1, heads=1, points=2)
    with pytest.raises(ValueError, match="^similarity must be cosine or partial"):
        kernel.cluster_soft(*arguments[:5], similarity=max)


@pytest.mark.parametrize("name", ["coc_tiny", "hcformer_tiny"])
def test_models_give_the_same(name, calls):
    import pointmix

    narrow = dict(depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), mlp_ratios=(1, 1, 1, 1), heads=1, head_dim=8)
    model = pointmix.create_model(
        name, windows_per_side=(2, 1, 1, 1), centers_per_side=(2, 2, 2, 1), num_classes=3, **narrow
    )
    model = model.to(**F64).eval()
    for p in model.parameters():  # whatever starts at zero, so that everything counts
        p.data += 0.1 * torch.randn_like(p)
    image = torch.randn(1, 3, 32, 32, **F64)
    found = []
    for backend in ("torch", "triton"):
        with use_backend(backend):
            out = model(image)
        found.append([out, *torch.autograd.grad(out.square().sum(), list(model.parameters()), allow_unused=True)])
        assert bool(calls) == (backend == "triton")
    # a stage each; above the first two, whose global centers are several, another branch
    assert calls == (["hard"] * 4 if name == "coc_tiny" else ["lorentz", "cosine"] * 2 + ["cosine"] * 2)
    for reference, fast in zip(*found, strict=True):
        if reference is not None:
            torch.testing.assert_close(fast, reference)

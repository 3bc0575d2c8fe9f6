"""Which precisions benchmarks/run.py measures. Nothing is timed: steps do nothing, and every one takes a second."""

from __future__ import annotations

from argparse import Namespace

import pytest

ROWS = (
    "share", "single", "literal", "memory", "compiled", "quarter", "tenth", "cloud", "pointmlp", "dense", "clustering",
    "points", "kept",
)  # fmt: skip
ONLY_FLOAT32 = ("cloud", "dense")


def nothing() -> None:
    pass


@pytest.fixture
def run(program, monkeypatch):
    """benchmarks/run.py with steps that do nothing, and the precisions that steps were made in."""
    run, made = program("run"), []

    def contender(args, name, precision, *rest, **kwargs):
        made.append(precision)
        return nothing, nothing, 1e9

    def steps(name, args, **kwargs):
        made.append("bf16" if args.bf16 else "float32")
        return nothing, nothing, 1e9

    def memory_of(name, argv):
        made.append("bf16" if "--bf16" in argv else "float32")
        return 1.0

    def contenders(name, args):
        made.append("bf16" if args.dtype == "bfloat16" else "float32")
        return {way: [nothing, nothing] for way in ("products", "direct")}, [1, 1]

    def dense(name, kind, batch, args):
        made.append("float32")
        return nothing

    def of_cloud(points, device):
        made.append("float32")
        return nothing

    shares, pairs, sets = program("shares"), program("pairs"), program("sets")
    for module in (shares, pairs, sets):
        monkeypatch.setattr(module, "in_turns", lambda tasks, *rest: [1 + i for i in range(len(tasks))])
        monkeypatch.setattr(module, "contender", contender)
    monkeypatch.setattr(shares, "product_task", lambda *rest: (nothing, 1))
    monkeypatch.setattr(pairs, "copy_task", lambda *rest: (nothing, 1))
    monkeypatch.setattr(pairs, "memory_of", memory_of)
    monkeypatch.setattr(pairs, "steps", steps)
    monkeypatch.setattr(program("points_models"), "steps", steps)
    monkeypatch.setattr(program("clustering"), "contenders", contenders)
    monkeypatch.setattr(program("segment"), "step", dense)
    monkeypatch.setattr(program("detect_literal"), "step", dense)
    monkeypatch.setattr(sets, "of_cloud", of_cloud)
    monkeypatch.setattr(sets, "CLOUDS", (10, 100))
    run.made = made
    return run


def args(run, precisions) -> Namespace:
    models = ["coc_tiny", "deit_tiny_patch16_224"]
    return Namespace(models=models, precisions=precisions, batch=2, device="cpu", threads=1, seconds=0)


def test_these_are_all_rows(run):
    assert tuple(run.ROWS) == ROWS


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("precision", ("float32", "bf16"))
def test_a_row_measures_the_given_precision_only(run, row, precision):
    lines = list(run.ROWS[row](args(run, [precision]), row))
    expected = set() if row in ONLY_FLOAT32 and precision == "bf16" else {precision}
    assert set(run.made) == {line["form"].split()[0] for line in lines} == expected


@pytest.mark.parametrize("row", [row for row in ROWS if row not in ONLY_FLOAT32])
def test_a_row_measures_both(run, row):
    lines = list(run.ROWS[row](args(run, ["float32", "bf16"]), row))
    assert set(run.made) == {line["form"].split()[0] for line in lines} == {"float32", "bf16"}


def test_bf16_is_left_out_where_it_is_emulated(run, monkeypatch, capsys):
    monkeypatch.setattr(run, "has_bf16", lambda: False)
    assert run.default_precisions("cpu") == ["float32"]
    assert "float32 only" in capsys.readouterr().err
    assert run.default_precisions("cuda") == ["float32", "bf16"]
    monkeypatch.setattr(run, "has_bf16", lambda: True)
    assert run.default_precisions("cpu") == ["float32", "bf16"]
    assert capsys.readouterr().err == ""


def test_rows_that_have_no_such_precision_are_told(run, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("POINTMIX_BENCH", "1")  # the program is not started anew
    monkeypatch.setattr("torch.set_num_threads", lambda n: None)
    command = ["run.py", "--rows", *ONLY_FLOAT32, "--precisions", "bf16", "--csv", str(tmp_path / "x.csv")]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as e:
        run.main()
    assert e.value.code == 2 and not (tmp_path / "x.csv").exists()
    assert "error: rows cloud, dense have nothing to measure with these options" in capsys.readouterr().err

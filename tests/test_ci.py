"""What CI says when the compiled backends do not build or load, with scripts in place of make, pip and python."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CI = Path(__file__).parents[1] / ".ci"
pytestmark = pytest.mark.skipif(not CI.is_dir() or shutil.which("bash") is None, reason="no .ci or no bash")

# Does what $FAIL does not name; notes its arguments and the limit for building in a file.
PYTHON = """#!/usr/bin/env bash
echo "$* MAX_JOBS=${MAX_JOBS:-}" >>"$LOG"
case "$*" in
*version_info*) echo torch-1-python-3 ;;
*"pip"*" wheel --no-cache-dir"*)
    [ "$FAIL" != slow ] || exec sleep 20
    [ "$FAIL" != build ] || exit 1
    while [ "$1" != --wheel-dir ]; do shift; done
    touch "$2/torch_cluster.whl" ;;
*"pip"*" install --no-deps"*) [ "$FAIL" != install ] ;;
*"import torch_cluster"*) [ "$FAIL" != load ] ;;
esac
"""
MAKE = """#!/usr/bin/env bash
echo "$1 ${POINTMIX_BUILD_SECONDS:-}" >>"$LOG"
[ "$1" != test ] || echo "9 passed"
[ "$1" != "$FAIL" ]
"""


def call(script: str, folder: Path, *arguments: str, **settings: str) -> tuple[int, str, str, list[str]]:
    """Exit code, stdout, stderr, and the calls of the stand-ins."""
    for name, text in (("python", PYTHON), ("make", MAKE)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    log = folder / "log"
    log.unlink(missing_ok=True)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("POINTMIX_")}
    env = clean | {"PATH": f"{folder}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(folder / "cache"), "CXX": "bash"}
    env |= {"LOG": str(log), "FAIL": "", **settings}
    done = subprocess.run([CI / script, *arguments], env=env, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr, log.read_text().splitlines() if log.exists() else []


def test_wheels_are_built_once(tmp_path: Path) -> None:
    code, out, err, calls = call("points", tmp_path, str(tmp_path / "python"))
    assert code == 0 and "building torch-cluster and torch-scatter into" in out and err == ""
    assert [c for c in calls if " wheel --no-cache-dir" in c][0].endswith("MAX_JOBS=1")
    code, out, err, calls = call("points", tmp_path, str(tmp_path / "python"))
    assert code == 0 and out == "" and not any(" wheel " in c for c in calls)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"FAIL": "build"}, "did not build: see above"),
        ({"FAIL": "slow", "POINTMIX_BUILD_SECONDS": "1"}, "did not build within 1 s (POINTMIX_BUILD_SECONDS)"),
        ({"FAIL": "install"}, "did not install from"),
        ({"FAIL": "load"}, "do not load; without"),
        ({"CXX": "no-such-compiler"}, "need a C++ compiler, and there is no no-such-compiler here"),
    ],
)
def test_a_failure_says_what_failed(tmp_path: Path, settings: dict[str, str], message: str) -> None:
    code, _, err, _ = call("points", tmp_path, str(tmp_path / "python"), **settings)
    assert code == 1 and err.splitlines()[-1].startswith("error: torch-cluster and torch-scatter") and message in err
    kept = list((tmp_path / "cache").rglob("*.whl"))
    assert bool(kept) == (settings.get("FAIL") in ("install", "load"))  # nothing half built is kept


@pytest.mark.parametrize(
    "settings, code, message",
    [
        (
            {},
            0,
            "neither built nor tested; POINTMIX_CI_POINTS=build does both",
        ),
        ({"FAIL": "lint"}, 1, "note: torch-cluster and torch-scatter were neither built nor tested"),
        ({"FAIL": "docs"}, 1, "note: torch-cluster and torch-scatter were neither built nor tested"),
        ({"FAIL": "test"}, 1, "note: torch-cluster and torch-scatter were neither built nor tested"),
        ({"POINTMIX_CI_POINTS": "build"}, 0, ""),
        (
            {"FAIL": "points", "POINTMIX_CI_POINTS": "build"},
            1,
            "error: torch-cluster and torch-scatter were",
        ),
        ({"FAIL": "test-backends", "POINTMIX_CI_POINTS": "build"}, 1, ""),
        ({"POINTMIX_CI_POINTS": "no"}, 2, "error: POINTMIX_CI_POINTS is 'no', expected build, or skip"),
    ],
)
def test_a_run_fails_with_any_of_its_parts(tmp_path: Path, settings: dict[str, str], code: int, message: str) -> None:
    found, out, err, calls = call("run", tmp_path, **settings)
    assert found == code and message in out + err
    if code != 2:
        assert out.splitlines()[-1] == "9 passed"
        made = [c.split()[0] for c in calls]
        assert ("points" in made) == ("POINTMIX_CI_POINTS" in settings)
        assert ("test-backends" in made) == ("points" in made and settings.get("FAIL") != "points")
        assert all(0 < int(c.split()[1]) <= 1500 for c in calls if c.startswith("points"))

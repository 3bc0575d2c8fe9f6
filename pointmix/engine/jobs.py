"""Several commands at a time."""

from __future__ import annotations

import os
import subprocess
import time
from collections import deque
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


def run_all(commands: dict[Key, list[str]], logs: dict[Key, Path], *, jobs: int) -> Iterator[tuple[Key, int]]:
    """Run commands, `jobs` at a time; yields the key and the exit code of each as it ends.

    Their output goes to their logs. With several at a time, each computes with one thread. If the caller stops early,
    running commands get SIGTERM and are waited for, so that trainings save their state.
    """
    env = os.environ | ({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} if jobs > 1 else {})
    package = str(Path(__file__).parents[2])  # the children import the same package
    env["PYTHONPATH"] = os.pathsep.join([package, *filter(None, [env.get("PYTHONPATH")])])
    waiting = deque(commands)
    running: dict[Key, subprocess.Popen[bytes]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                key = waiting.popleft()
                logs[key].parent.mkdir(parents=True, exist_ok=True)
                with logs[key].open("w") as log:
                    running[key] = subprocess.Popen(commands[key], stdout=log, stderr=subprocess.STDOUT, env=env)
            for key, process in list(running.items()):
                if process.poll() is not None:
                    del running[key]
                    yield key, process.returncode
            time.sleep(0.05)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def last_line(log: Path) -> str:
    """The last line of a command's output: why it failed."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"

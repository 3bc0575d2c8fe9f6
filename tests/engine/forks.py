"""Trainings in processes that can be killed, without waiting for imports: a server imports all once, then forks.

Run as a script it reads jobs, one JSON a line, and answers each with exit codes, output and the events of rank 0: what
it wrote, file by file, and its training steps. A job may name the event at which a rank kills itself, in the middle of
it.
"""

from __future__ import annotations

import builtins
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Forks:
    """Starts the server and gives it jobs."""

    def __init__(self) -> None:
        env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self.server = subprocess.Popen(
            [sys.executable, __file__], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, cfg, *, ranks=1, kill=None, timeout=120):
        """Train; `kill` is {"event": kind, "count": n, "rank": r} or {"seconds": s}. Gives codes, out and events.

        A kind is "step", or "write", "sync", "replace" or "unlink" and the beginning of a file's name.
        """
        import yaml

        from pointmix.tasks.base import task_of
        from pointmix.tasks.config import as_plain

        job = {"config": yaml.safe_dump(as_plain(cfg)), "task": task_of(cfg).name, "ranks": ranks, "kill": kill or {}}
        self.server.stdin.write(json.dumps(job | {"timeout": timeout}) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def close(self) -> None:
        self.server.kill()  # it is idle; the end of its input may not reach it, for forked data workers hold it open
        self.server.wait()
        self.server.stdin.close()
        self.server.stdout.close()


# ---- the server -------------------------------------------------------------------------------------------------


class Watch:
    """Counts what a process does on its way, and kills the process at one of these events."""

    def __init__(self, kill: dict, log: str | None) -> None:
        self.kill, self.seen = kill, {}
        self.log = builtins.open(log, "w", buffering=1) if log else None

    def __call__(self, kind: str, half=lambda: None) -> None:
        self.seen[kind] = self.seen.get(kind, 0) + 1
        if self.log:
            self.log.write(f"{kind}\n")
        if kind == self.kill.get("event") and self.seen[kind] == self.kill["count"]:
            half()
            os.kill(os.getpid(), signal.SIGKILL)

    def before(self, kind: str, call):
        """`call`, with an event before it, called `kind` and, where there is one, after the last file."""

        def watched(*args):
            files = [arg for arg in args if isinstance(arg, str | Path)]
            self(f"{kind} {label(files[-1])}" if files else kind)
            return call(*args)

        return watched

    def open(self, path, mode="r"):
        file = builtins.open(path, mode)
        return Written(file, self, label(path)) if "w" in mode else file


def label(path) -> str:
    return re.match(r"\.?([a-z]*)", Path(path).name)[1]


class Written:
    def __init__(self, file, watch: Watch, name: str) -> None:
        self.file, self.watch, self.name = file, watch, name

    def __enter__(self):
        return self

    def __exit__(self, *args) -> None:
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data) -> int:
        def half() -> None:
            self.file.write(memoryview(data).cast("B")[: len(data) // 2])
            self.file.flush()

        self.watch(f"write {self.name}", half)
        return self.file.write(data)


def child(job: dict, rank: int, port: int, out: str, log: str) -> None:
    """Train in a fork; ends the process."""
    code = 1
    try:
        fd = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(fd, 1), os.dup2(fd, 2)
        sys.stdout, sys.stderr = (io.TextIOWrapper(os.fdopen(n, "wb", 0), write_through=True) for n in (1, 2))
        if job["ranks"] > 1:
            size = str(job["ranks"])
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        from pointmix.data.images.sources import digits
        from pointmix.engine import finish, loop
        from pointmix.engine.flags import parse
        from pointmix.engine.train import train
        from pointmix.tasks.base import get_task
        from pointmix.utils import atomic
        from pointmix.utils.cli import exit_code
        from tests.engine.few_digits import few_digits

        digits.open_digits = few_digits
        finish._draw = lambda picture, path: None
        kill = job["kill"] if job["kill"].get("rank", 0) == rank else {}
        watch = Watch(kill, log if rank == 0 else None)
        atomic.open = watch.open
        os.fsync, os.replace = watch.before("sync", os.fsync), watch.before("replace", os.replace)
        unlink = watch.before("unlink", Path.unlink)
        Path.unlink = lambda path, missing_ok=False: unlink(path) if path.exists() else None
        loop.train_step = watch.before("step", loop.train_step)
        config = get_task(job["task"]).config
        code = exit_code(lambda: train(parse([f"--config={job['config']}"], config)))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def serve() -> None:
    import torch

    import pointmix.engine.seeds
    from pointmix.tasks.base import get_task, list_tasks
    from tests.engine.few_digits import few_digits

    torch.set_num_threads(1)
    for name in list_tasks():
        get_task(name)
    few_digits("train"), few_digits("test")
    with torch.no_grad():  # what is compiled on the first call is then there in each fork
        pointmix.create_model("pointmlp", dim=8, neighbors=4).eval()(torch.rand(1, 64, 3))
        pointmix.create_model("coc_tiny", in_chans=1).eval()(torch.rand(1, 1, 8, 8))
    with tempfile.TemporaryDirectory() as folder:
        for line in iter(sys.stdin.readline, ""):
            print(json.dumps(answer(json.loads(line), Path(folder))), flush=True)


def answer(job: dict, folder: Path) -> dict:
    out, log = folder / "out", folder / "log"
    out.write_text("")
    log.write_text("")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pids = {}
    for rank in range(job["ranks"]):
        pid = os.fork()
        if pid == 0:
            child(job, rank, port, str(out), str(log))
        pids[pid] = rank
    codes, start, running = {}, time.monotonic(), dict(pids)
    late = job["kill"].get("seconds", job["timeout"])
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in running:
            codes[running.pop(pid)] = os.waitstatus_to_exitcode(status)
        failed = any(codes.values())
        if failed:  # as torchrun does, but give the others the time to say why they end
            late = min(late, time.monotonic() - start + (0 if -signal.SIGKILL in codes.values() else 5))
        if running and time.monotonic() - start > late:
            for other in running:
                os.kill(other, signal.SIGKILL)
        time.sleep(0.01)
    events = log.read_text().splitlines()
    return {"codes": [codes[r] for r in range(job["ranks"])], "out": out.read_text(), "events": events}


if __name__ == "__main__":
    serve()

"""Two processes evaluate together: one AP, each image counted once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from pointmix.data.detect.splits import build_detect_test
from pointmix.engine import evaluate, load_run
from pointmix.tasks.base import get_task
from tests.tasks.detect.test_task import TINY

ROOT = Path(__file__).resolve().parents[3]


def test_two_processes_have_the_ap_of_one(tmp_path):
    """The test split has 5 images, so one process has 3 and the other 2."""
    config = {
        "data": {"source": "toy_odd", "val_fraction": 0.3},
        "model": {"name": "coc_tiny", "kwargs": TINY},
        "output_dir": str(tmp_path / "run"),
        "epochs": 2,
        "batch_size": 1,
        "optim": {"lr": 0.01, "lr_base_batch": 2},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "odd.py").write_text(
        "from tests.data.detect.toy import DEFAULTS, Toy, register_detect_source\n"
        "register_detect_source('toy_odd', defaults=DEFAULTS)(\n"
        "    lambda config, split: None if split == 'val' else Toy(split, 5 if split == 'test' else None))\n"
    )
    paths = os.pathsep.join([str(ROOT), str(tmp_path)])
    env = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=0", "--standalone"]
    command += [str(ROOT / "scripts" / "train.py"), "--task=detect", "--import=odd", f"--config={tmp_path}/run.yaml"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("test box AP50") == 1  # one process speaks

    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["processes"] == 2 and sum(metrics["test"]["objects"]) == 15
    model, info = load_run(tmp_path / "run")
    sys.path.insert(0, str(tmp_path))
    try:
        import odd  # noqa: F401
    finally:
        sys.path.remove(str(tmp_path))
    task = get_task("detect")
    loader = build_detect_test(task.data_config(info))[0]
    assert evaluate(model, loader, metric=task.build_metric(info)) == metrics["test"]

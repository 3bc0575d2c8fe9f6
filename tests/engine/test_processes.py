"""Two processes end with the weights of one process with the same total batch."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from pointmix.engine import states
from pointmix.engine.train import train
from pointmix.tasks.config import as_plain

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.usefixtures("no_pictures")
def test_two_processes_equal_one(tiny_config, tmp_path):
    """After 14 steps in float32 no weight differs by more than 1e-6: the same sums in another order.

    With SGD, because AdamW divides by the size of a gradient and so makes rounding errors of vanishing gradients, such
    as those of the queries in the first steps, as large as a step.
    """
    one = tiny_config(
        kwargs={"drop_path_rate": 0.0}, mix={"mixup": 0.0, "cutmix": 0.0}, optim={"opt": "sgd", "lr": 0.1},
        output_dir=str(tmp_path / "one"), epochs=2,
    )  # fmt: skip
    one = dataclasses.replace(one, model=dataclasses.replace(one.model, freeze="stages.0.blocks.0.norm1"))
    expected = train(one)
    two = dataclasses.replace(one, output_dir=str(tmp_path / "two"), batch_size=one.batch_size // 2)
    file = tmp_path / "two.yaml"
    file.write_text(yaml.safe_dump(as_plain(two)))
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=0", "--standalone"]
    command += [str(ROOT / "scripts" / "train_image.py"), f"--config={file}"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("test top-1") == 1  # one process speaks

    found = [states.load_state(f"{cfg.output_dir}/{states.FOLDER}")[0] for cfg in (one, two)]
    assert len(found[1]["processes"]) == 2
    for part in ("model", "ema"):
        for key, value in found[0][part].items():
            torch.testing.assert_close(found[1][part][key], value, rtol=0, atol=1e-6)
    history = found[1]["train_state"]["history"]
    assert [e["val"]["top1"] for e in history] == [e["val"]["top1"] for e in expected["history"]]
    assert [e["train_loss"] for e in history] == pytest.approx([e["train_loss"] for e in expected["history"]], abs=1e-5)
    with pytest.raises(ValueError, match="another total batch: .* was 8 x 1 x 2 and now 8 x 1 x 1"):
        train(two)

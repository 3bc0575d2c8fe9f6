"""Weights of single epochs of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pointmix.engine.checkpoint import load_run
from pointmix.engine.epochs import kept_epochs
from pointmix.engine.train import train

pytestmark = pytest.mark.usefixtures("no_pictures")


def test_epochs_are_kept_and_change_nothing(tiny_config, tmp_path):
    plain = tiny_config(output_dir=str(tmp_path / "plain"))
    cfg = replace(plain, output_dir=str(tmp_path / "kept"), keep_epochs=1, select="last")
    assert kept_epochs(tmp_path / "kept") == []
    metrics, expected = train(cfg), train(replace(plain, select="last"))
    assert [e["train_loss"] for e in metrics["history"]] == [e["train_loss"] for e in expected["history"]]
    assert not (tmp_path / "plain/epochs").exists()
    model, info = load_run(tmp_path / "kept")
    last = {key: value.clone() for key, value in model.state_dict().items()}
    found = kept_epochs(tmp_path / "kept")
    assert [label for label, _ in found] == ["epoch 1", "epoch 2", "epoch 3", "epoch 3, selected"]
    seen = []
    for _, load in found:
        load(model)
        seen.append(model.state_dict()["head.weight"].clone())
    assert not seen[0].equal(seen[1]) and seen[2].equal(seen[3]) and seen[3].equal(last["head.weight"])
    assert load_run(tmp_path / "kept/epochs/epoch_1.safetensors")[1]["classes"] == info["classes"]

    file = Path(tmp_path, "kept/epochs/epoch_2.safetensors")
    file.write_bytes(file.read_bytes()[:-4] + b"\0\1\2\3")
    with pytest.raises(ValueError, match="epoch_2.safetensors is damaged"):
        found[1][1](model)
    train(replace(cfg, restart=True, keep_epochs=3))  # those of the earlier run are gone
    assert [label for label, _ in kept_epochs(tmp_path / "kept")] == ["epoch 3", "epoch 3, selected"]
    Path(tmp_path, "kept/metrics.json").write_text("{}")
    assert kept_epochs(tmp_path / "kept")[-1][0] == "selected weights"
    assert torch.isfinite(seen[0]).all()

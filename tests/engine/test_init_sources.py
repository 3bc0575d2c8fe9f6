from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file

from pointmix.engine.init import start_from
from pointmix.engine.init_sources import local_weights


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one network of timm; gives the requests made."""
    save_file(timm.create_model("resnet10t", num_classes=5).state_dict(), tmp_path / "model.safetensors")
    asked = []

    def download(name, file, *, revision):
        asked.append((name, file, revision))
        if name != "timm/resnet10t.c3_in1k":
            raise OSError(f"404 for {name}\nand more lines")
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return asked


@pytest.mark.parametrize("name", ["timm/resnet10t.c3_in1k", "hf-hub:timm/resnet10t.c3_in1k"])
def test_a_network_of_the_hub(hub, name):
    model = timm.create_model("resnet10t", num_classes=3)
    torch.nn.init.zeros_(model.conv1[0].weight)
    taken = start_from(model, local_weights(name), name="resnet10t")
    assert hub == [("timm/resnet10t.c3_in1k", "model.safetensors", None)]
    assert taken.other_shape == {"fc.weight", "fc.bias"} and model.conv1[0].weight.abs().sum() > 0


def test_revisions_and_paths(hub, tmp_path, monkeypatch):
    local_weights("hf-hub:timm/resnet10t.c3_in1k@abc")
    assert hub == [("timm/resnet10t.c3_in1k", "model.safetensors", "abc")]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "timm/own").mkdir(parents=True)
    assert local_weights("timm/own") == Path("timm/own") and local_weights("runs/a") == Path("runs/a")
    assert len(hub) == 1


def test_what_cannot_be_downloaded(hub):
    with pytest.raises(ValueError, match="^cannot download model.safetensors of hf-hub:a/b: 404") as e:
        local_weights("hf-hub:a/b")
    assert "\n" not in str(e.value)

"""Checkpoints of others, and weights whose metadata lie."""

from __future__ import annotations

import argparse
import collections
import datetime
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

import pointmix
from pointmix.engine.checkpoint import load_run
from pointmix.engine.inference import open_model
from pointmix.tasks.base import get_task, list_tasks

SMALL = dict(depths=[1, 1, 1, 1], dims=[4, 4, 4, 4], heads=2, head_dim=2)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return pointmix.create_model("coc_tiny", **SMALL, num_classes=2).eval()


@pytest.fixture(scope="module")
def weights(net) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


class Trap:
    """Writes a file when it is unpickled."""

    def __reduce__(self):
        return open, ("sprung", "w")


def saved(content: object, **kwargs) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **kwargs)
    return file.getvalue()


def compressed(content: bytes) -> bytes:
    """A checkpoint whose records are squeezed: zeros become a thousand times larger when it is read."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    return out.getvalue()


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return out.getvalue()


def scripted() -> bytes:
    out = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(1, 1)), out)
    return out.getvalue()


W = {"w": torch.zeros(2)}
FILES: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "text": lambda: b"hello",
    "web page": lambda: b"<!DOCTYPE html><html><body>404</body></html>",
    "web page after lines": lambda: b"\n\n  <html>",
    "pointer of Git LFS": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "terminal codes": lambda: b"\x1b[31mred\x1b[0m",
    "JSON": lambda: b'{"w": 1}',
    "zeros": lambda: bytes(5000),
    "pickle cut": lambda: pickle.dumps(W)[:40],
    "plain pickle": lambda: pickle.dumps({"a": 1}),
    "pickle that runs code": lambda: pickle.dumps(Trap()),
    "pickle of protocol 5 that runs code": lambda: pickle.dumps(Trap(), protocol=5),
    "checkpoint that runs code": lambda: saved({"state_dict": W, "x": Trap()}),
    "old checkpoint that runs code": lambda: saved({"w": Trap()}, _use_new_zipfile_serialization=False),
    "pickle that pops nothing": lambda: b"\x80\x02.",
    "pickle of a wrong memo": lambda: b"\x80\x02h\xff.",
    "archive cut": lambda: saved(W)[:-30],
    "archive of its first bytes": lambda: b"PK\x03\x04" + bytes(50),
    "archive of something else": lambda: zipped(a=b"hello"),
    "archive with an empty pickle": lambda: zipped(**{"x/data.pkl": b"", "x/version": b"3\n"}),
    "compressed": lambda: compressed(saved({"w": torch.zeros(1 << 20)})),
    "program of TorchScript": scripted,
    "whole network": lambda: saved(nn.Linear(1, 1)),
    "list": lambda: saved([torch.zeros(2)]),
    "one tensor": lambda: saved(torch.zeros(2)),
    "no tensors": lambda: saved({"epoch": 3}),
    "tensors under numbers": lambda: saved({0: torch.zeros(2)}),
    "tensors under nothing": lambda: saved({"": torch.zeros(2)}),
    "tensors under a prefix alone": lambda: saved({"module.": torch.zeros(2)}),
    "one name twice": lambda: saved({"module.w": torch.zeros(2), "w": torch.zeros(2)}),
    "another network": lambda: saved(W),
    "terminal codes in a name": lambda: saved({"\x1b[31mw": torch.zeros(2)}),
    "a name of 1 MB": lambda: saved({"w" * 1_000_000: torch.zeros(2)}),
    "a type of 1 MB": lambda: b"\x80\x02c" + b"a" * 1_000_000 + b"\nb\n.",
    "terminal codes in a type": lambda: b"\x80\x02c\x1b[31ma\nb\n.",
    "containers without end": lambda: saved({"model": {"model": {"model": {}}}}),
    "arrays of numpy": lambda: saved({"w": np.zeros(2)}),
    "datetime for weights": lambda: saved(datetime.datetime(2020, 1, 1)),
}


@pytest.mark.parametrize("case", FILES)
def test_checkpoints(case, folder, refused, net):
    Path("a.pth").write_bytes(FILES[case]())
    assert "a.pth" in refused(lambda: pointmix.load_reference(net, "a.pth"))
    assert not Path("sprung").exists()


@pytest.mark.parametrize("case", ["text", "web page", "checkpoint that runs code", "compressed", "another network"])
def test_checkpoints_of_timms_networks(case, folder, refused):
    Path("a.pth").write_bytes(FILES[case]())
    assert "a.pth" in refused(
        lambda: open_model(model="test_vit", task="classify_images", checkpoint="a.pth", kwargs={"num_classes": 2})
    )
    assert not Path("sprung").exists()


TENSORS: dict[str, Callable[[Tensor], object]] = {
    "sparse": lambda x: x.to_sparse(),
    "complex": lambda x: x.to(torch.complex64),
    "without values": lambda x: x.to("meta"),
    "quantized": lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.quint8),
    "of another shape": lambda x: x.flatten()[:-1],
    "text": lambda x: "weights",
    "nothing": lambda x: None,
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors(case, refused, net, weights):
    refused(lambda: pointmix.load_reference(net, weights | {"head.weight": TENSORS[case](weights["head.weight"])}))


HARMLESS: dict[str, Any] = {
    "scalar of numpy": np.float64(71.5),
    "array of numpy": np.arange(3),
    "type of numpy": np.dtype("f4"),
    "path": Path("runs/1"),
    "defaultdict": collections.defaultdict(list, {"loss": [1.0]}),
    "counter": collections.Counter("aab"),
    "arguments": argparse.Namespace(lr=0.1, out=Path("x"), best=np.float32(1)),
    "date": datetime.datetime(2020, 1, 1),
    "slice": slice(1, 2),
    "frozenset": frozenset([1]),
}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("case", HARMLESS)
def test_what_trainers_keep_beside_weights_is_set_aside(case, old, folder, net, weights):
    content = {"best": HARMLESS[case], "state_dict": weights, "other": {"x": [HARMLESS[case]]}}
    Path("a.pth").write_bytes(saved(content, _use_new_zipfile_serialization=not old))
    other = pointmix.create_model("coc_tiny", **SMALL, num_classes=2)
    pointmix.load_reference(other, "a.pth")
    assert all(torch.equal(value, weights[name]) for name, value in other.state_dict().items())


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.model."])
@pytest.mark.parametrize("container", [None, "state_dict", "model"])
def test_prefixes_of_wrappers_in_any_order(prefix, container, weights):
    named = {prefix + name: value for name, value in weights.items()}
    other = pointmix.create_model("coc_tiny", **SMALL, num_classes=2)
    pointmix.load_reference(other, named if container is None else {container: {"state_dict": named}})
    assert all(torch.equal(value, weights[name]) for name, value in other.state_dict().items())


def test_a_compiled_network_takes_weights(weights):
    other = pointmix.create_model("coc_tiny", **SMALL, num_classes=2)
    compiled = torch.compile(other)
    named = {name.replace("stages.", "stages._orig_mod."): value for name, value in weights.items()}
    assert pointmix.load_reference(compiled, named) is compiled
    assert all(torch.equal(value, weights[name]) for name, value in other.state_dict().items())


INFO = {"task": "classify_images", "name": "coc_tiny", "kwargs": SMALL, "classes": ["a", "b"], "in_chans": 3}
INFO |= {"img_size": 32, "mean": [0.5] * 3, "std": [0.5] * 3, "data": {}}
METADATA: dict[str, dict[str, object]] = {
    "name of no task": {"task": "detect"},
    "a task in a list": {"task": ["classify_images"]},
    "a module for a task": {"task": "os.system"},
    "no name of a task": {"task": ""},
    "terminal codes for a task": {"task": "\x1b[31m"},
    "another task": {"task": "classify_points"},
    "name of no model": {"name": "coc_gigantic"},
    "name from the network": {"name": "hf-hub:someone/model"},
    "name from a folder": {"name": "local-dir:/tmp"},
    "name in a list": {"name": ["coc_tiny"]},
    "no name": {"name": ""},
    "terminal codes for a name": {"name": "\x1b[31m"},
    "a name of 1 MB": {"name": "c" * 1_000_000},
    "kwargs in a list": {"kwargs": [1]},
    "kwargs in a number": {"kwargs": 1},
    "unknown argument": {"kwargs": SMALL | {"wings": 2}},
    "10^9 blocks": {"kwargs": SMALL | {"depths": [10**9, 1, 1, 1]}},
    "8000 blocks": {"kwargs": SMALL | {"depths": [8000, 1, 1, 1]}},
    "100,000 stages": {"kwargs": SMALL | {"depths": [1] * 100_000, "dims": [4] * 100_000}},
    "10^9 dimensions": {"kwargs": SMALL | {"dims": [10**9] * 4}},
    "8000 dimensions": {"kwargs": SMALL | {"dims": [8000] * 4}},
    "10^30 heads": {"kwargs": SMALL | {"heads": 10**30}},
    "no heads": {"kwargs": SMALL | {"heads": 0}},
    "-1 heads": {"kwargs": SMALL | {"heads": -1}},
    "half a head": {"kwargs": SMALL | {"heads": 0.5}},
    "a word for heads": {"kwargs": SMALL | {"heads": "two"}},
    "nothing for depths": {"kwargs": SMALL | {"depths": None}},
    "depths in depths": {"kwargs": SMALL | {"depths": [[1], [1], [1], [1]]}},
    "endless ratio": {"kwargs": SMALL | {"mlp_ratios": [float("inf")] * 4}},
    "a ratio of 10^15": {"kwargs": SMALL | {"mlp_ratios": [1e15] * 4}},
    "drop path of NaN": {"kwargs": SMALL | {"drop_path_rate": float("nan")}},
    "an image of 10^6 rows": {"name": "test_vit", "kwargs": {"img_size": 10**6}},
    "an image of 20,000 rows": {"name": "test_vit", "kwargs": {"img_size": 20_000}},
    "an image of -1 rows": {"name": "test_vit", "kwargs": {"img_size": -1}},
    "an image in a word": {"name": "test_vit", "kwargs": {"img_size": "large"}},
    "no classes": {"classes": []},
    "classes in a number": {"classes": 2},
    "classes in numbers": {"classes": [0, 1]},
    "another number of classes": {"classes": ["a"]},
    "10^6 classes": {"classes": ["a"] * 1_000_000},
    "classes in a word": {"classes": "ab"},
    "channels in a word": {"in_chans": "three"},
    "no channels": {"in_chans": None},
    "channels twice": {"kwargs": SMALL | {"in_chans": 3}},
    "-1 channels": {"in_chans": -1},
    "10^9 channels": {"in_chans": 10**9},
    "channels of truth": {"in_chans": True},
    "size in a word": {"img_size": "large"},
    "size of nothing": {"img_size": 0},
    "size of 10^9": {"img_size": 10**9},
    "mean in a number": {"mean": 0.5},
    "mean of NaN": {"mean": [float("nan")] * 3},
    "mean of words": {"mean": ["a", "b", "c"]},
    "means of other channels": {"mean": [0.5, 0.5]},
    "deviation of zero": {"std": [0.0] * 3},
    "deviation of nothing": {"std": None},
    "data in a list": {"data": []},
}


def run_of(weights: dict[str, Tensor], metadata: dict[str, str]) -> None:
    Path("model.safetensors").write_bytes(save(weights, metadata))


@pytest.mark.parametrize("case", METADATA)
def test_metadata(case, folder, refused, weights):
    run_of(weights, {key: json.dumps(value) for key, value in (INFO | METADATA[case]).items()})
    assert "model.safetensors" in refused(lambda: load_run("model.safetensors"))


RAW: dict[str, str] = {
    "no JSON": "coc",
    "nothing": "",
    "deep lists": "[" * 100_000 + "]" * 100_000,
    "deep objects": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "a number of 5000 digits": "9" * 5000,
    "half a string": '"abc',
    "terminal codes": "\x1b[31m",
}


@pytest.mark.parametrize("key", ["task", "name", "kwargs", "classes", "mean"])
@pytest.mark.parametrize("case", RAW)
def test_metadata_that_is_no_json(case, key, folder, refused, weights):
    run_of(weights, {k: json.dumps(value) for k, value in INFO.items()} | {key: RAW[case]})
    message = refused(lambda: load_run("model.safetensors"))
    assert "model.safetensors" in message and key in message


def header(text: bytes, size: int | None = None) -> bytes:
    return (len(text) if size is None else size).to_bytes(8, "little") + text


SAFETENSORS: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "text": lambda: b"hello",
    "header of 2^63": lambda: header(b"{}", 2**63),
    "header of 2^40": lambda: header(b"{}", 2**40),
    "header that is no JSON": lambda: header(b"hello"),
    "deep header": lambda: header(b"[" * 10_000),
    "tensor beyond the end": lambda: header(b'{"w":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'),
    "tensor of 2^60": lambda: header(b'{"w":{"dtype":"F32","shape":[1152921504606846976],"data_offsets":[0,4]}}    '),
    "tensor below zero": lambda: header(b'{"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}') + bytes(4),
    "unknown type": lambda: header(b'{"w":{"dtype":"X9","shape":[1],"data_offsets":[0,4]}}') + bytes(4),
    "tensors that overlap": lambda: header(
        b'{"v":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    ) + bytes(4),
    "no metadata": lambda: save(W),
    "checkpoint of torch": lambda: saved(W),
}  # fmt: skip


@pytest.mark.parametrize("case", SAFETENSORS)
def test_safetensors(case, folder, refused, net):
    Path("a.safetensors").write_bytes(SAFETENSORS[case]())
    assert "a.safetensors" in refused(lambda: load_run("a.safetensors"))
    assert "a.safetensors" in refused(lambda: pointmix.load_reference(net, "a.safetensors"))


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
@pytest.mark.parametrize("place", ["nothing", "a pipe", "a device", "a folder"])
def test_places_without_a_file(place, name, folder, refused, net):
    {
        "nothing": lambda: None,
        "a pipe": lambda: os.mkfifo(name),
        "a device": lambda: Path(name).symlink_to("/dev/zero"),
        "a folder": lambda: Path(name).mkdir(),
    }[place]()
    assert name in refused(lambda: pointmix.load_reference(net, name))
    assert name in refused(lambda: load_run(name))


SETTINGS: dict[str, dict[str, object]] = {
    "unknown": {"wings": 2},
    "size in a word": {"img_size": "large"},
    "size in a list": {"img_size": [32]},
    "size below zero": {"img_size": -1},
    "crop of nothing": {"crop_pct": None, "img_size": "x"},
    "share in a word": {"img_size": 32, "keep_ratio": "half"},
    "share in a list": {"img_size": 32, "keep_ratio": [1]},
    "unknown interpolation": {"img_size": 32, "interpolation": "magic"},
    "deviation in a number": {"img_size": 32, "std": 1},
    "points in a word": {"points": "many"},
}


@pytest.mark.parametrize("case", SETTINGS)
def test_data_settings(case, refused):
    for name in list_tasks():
        refused(lambda name=name: get_task(name).data_config({"path": "x.safetensors", "data": SETTINGS[case]}))

"""The released networks' own numbers, in float64. See the README beside the golden files for how they were made."""

from __future__ import annotations

import json
import math
import re
import zlib
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import pointmix
from pointmix import PointSet
from pointmix.models.weights import reference_name

CASES = {
    "coc_tiny_224": ("coc_tiny", {}),
    "coc_tiny2_224": ("coc_tiny2", {}),
    "coc_tiny_plain_96": ("coc_tiny_plain", {}),
    "coc_small_25_128x192": ("coc_small", dict(centers_per_side=(5, 5, 5, 5))),
    "fec_small_96": ("fec_small", {}),
}
HCFORMERS = {"hcformer_nano_224": ("hcformer_nano", {}), "hcformer_tiny_200x304": ("hcformer_tiny", {})}
CLOUDS = ("pointmlp_elite_eval", "pointmlp_coc_eval", "pointmlp_coc_train")


def weight(key: str, shape: list[int]) -> torch.Tensor:
    """The value of a tensor by the rules of the golden files."""
    r = np.asarray(np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape), np.float32)
    if key.endswith("num_batches_tracked"):
        value = 0
    elif key.endswith("running_var"):
        value = 1 + 0.2 * np.abs(r)
    elif "layer_scale" in key:
        value = 0.5 + 0.1 * r
    elif "alpha" in key:
        value = (1 if "affine" in key else 2) + 0.1 * r
    elif "bias_patch" in key or "bias_window" in key:
        value = 0.5 * r
    elif r.ndim >= 2 and "affine" not in key:
        value = r / np.float32(np.sqrt(r.size / shape[0]))
    elif r.ndim == 1 and key.endswith("weight"):
        value = 1 + 0.1 * r
    else:
        value = 0.1 * r
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def test_all_golden_outputs_of_the_families_are_compared(golden: Path):
    for pattern, cases in (("coc_*", CASES), ("fec_*", CASES), ("hcformer_*", HCFORMERS), ("pointmlp*", CLOUDS)):
        stems = {path.stem for path in golden.glob(f"{pattern}.json")}
        assert stems == {case for case in cases if fnmatch(case, pattern)}


@pytest.mark.parametrize("sparse", [False, True], ids=["grid", "sparse"])
@pytest.mark.parametrize("case", CASES)
def test_golden(golden: Path, case: str, sparse: bool):
    about = json.loads((golden / f"{case}.json").read_text())
    expected = load_file(golden / f"{case}.safetensors")
    name, kwargs = CASES[case]
    model = pointmix.create_model(name, **kwargs).double()
    pointmix.load_reference(model, {key: weight(key, shape) for key, shape in about["keys"].items()})
    assert sum(p.numel() for p in model.parameters()) == about["parameters"]

    images = np.random.RandomState(0).standard_normal(about["input"]["shape"]).astype(np.float32)
    points = PointSet.from_images(torch.from_numpy(images).double())
    points = points.as_sparse() if sparse else points
    maps = model.forward_intermediates(points, intermediates_only=True)
    logits = model(points)
    torch.testing.assert_close(logits, expected["logits"], rtol=0, atol=1e-9)
    for i, found in enumerate(maps):
        if f"stage{i}" in expected:  # stored in float32
            torch.testing.assert_close(found.to_image(), expected[f"stage{i}"].double(), rtol=1e-6, atol=1e-6)

    compare_gradients(model, logits, about, expected)
    assert set(about["grad_l2"]) == {key for key in about["keys"] if ".conv_f." not in key}  # which cluster, no more


def hcformer_name(key: str) -> str:
    """The released network has no weights; the golden files' names of its tensors are as plain as ours."""
    key = re.sub(r"^stem\.", "stages.0.reducer.", key)
    key = re.sub(r"^reducers\.(\d)\.", lambda m: f"stages.{int(m[1]) + 1}.reducer.", key)
    key = re.sub(r"\.layer_scale(\d)$", r".scale\1.gamma", key)
    return re.sub(r"\.mixer\.(query|value)\.", lambda m: f".mixer.qv.{int(m[1] == 'value')}:2.", key)


@pytest.mark.parametrize("sparse", [False, True], ids=["grid", "sparse"])
@pytest.mark.parametrize("case", HCFORMERS)
def test_golden_of_hcformer(golden: Path, case: str, sparse: bool):
    about = json.loads((golden / f"{case}.json").read_text())
    expected = load_file(golden / f"{case}.safetensors")
    name, kwargs = HCFORMERS[case]
    model = pointmix.create_model(name, **kwargs).double()
    values = {key: weight(key, shape) for key, shape in about["keys"].items()}
    pointmix.load_reference(model, {hcformer_name(key): value for key, value in values.items()})
    assert sum(p.numel() for p in model.parameters()) == about["parameters"]

    images = np.random.RandomState(0).standard_normal(about["input"]["shape"]).astype(np.float32)
    points = PointSet.from_images(torch.from_numpy(images).double())
    points = points.as_sparse() if sparse else points
    logits = model(points)
    torch.testing.assert_close(logits, expected["logits"], rtol=0, atol=1e-9)
    if "stage0" in expected:
        for i, found in enumerate(model.forward_intermediates(points, intermediates_only=True)):
            torch.testing.assert_close(found.to_image(), expected[f"stage{i}"].double(), rtol=1e-6, atol=1e-6)
    # the file's gradients above stage 2 are NaN: its distance has none where points coincide, as one window does
    # with its one center
    known = {key: norm for key, norm in about["grad_l2"].items() if math.isfinite(norm)}
    assert len(known) == 58
    about = {**about, "grad_l2": {hcformer_name(key): norm for key, norm in known.items()}}
    compare_gradients(model, logits, about, {})
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("case", CLOUDS)
def test_golden_of_clouds(golden: Path, case: str):
    about = json.loads((golden / f"{case}.json").read_text())
    expected = load_file(golden / f"{case}.safetensors")
    name, mode = case.rsplit("_", 1)
    model = pointmix.create_model(name, num_classes=15, order="given", drop_rate=0.0).double()
    pointmix.load_reference(model, {key: weight(key, shape) for key, shape in about["keys"].items()})
    assert sum(p.numel() for p in model.parameters()) == about["parameters"]

    xyz = np.random.RandomState(0).uniform(-1, 1, about["input"]["shape"]).astype(np.float32)
    xyz = torch.from_numpy(xyz).double().transpose(1, 2).contiguous()  # (B, 3, N) -> (B, N, 3)
    logits = model.train(mode == "train")(xyz)
    torch.testing.assert_close(logits, expected["logits"], rtol=0, atol=1e-9)
    compare_gradients(model, logits, about, expected)
    assert set(about["grad_l2"]) == {key for key in about["keys"] if not key.endswith(("_var", "_mean", "_tracked"))}
    if mode == "eval":
        with torch.no_grad():  # works in pieces
            torch.testing.assert_close(model(xyz), expected["logits"], rtol=0, atol=1e-9)


def compare_gradients(model: torch.nn.Module, logits: torch.Tensor, about: dict, expected: dict) -> None:
    (logits * torch.from_numpy(np.random.RandomState(1).standard_normal(logits.shape))).sum().backward()
    parameters = dict(model.named_parameters())
    for key, norm in about["grad_l2"].items():
        ours, part = reference_name(key)
        grad = parameters[ours].grad
        grad = grad if part is None else grad.chunk(part[1])[part[0]]
        assert grad.norm().item() == pytest.approx(norm, rel=1e-9, abs=1e-9), key
        if f"grad/{key}" in expected:
            torch.testing.assert_close(grad.flatten(), expected[f"grad/{key}"].flatten().double(), rtol=1e-9, atol=1e-9)

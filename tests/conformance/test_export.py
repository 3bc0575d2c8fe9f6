"""Exported networks give the network's outputs for sizes that the exporter has not seen; one variant of each family,
narrow and of one or two stages."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from safetensors.torch import save_file

import pointmix
from pointmix import PointSet
from pointmix.commands.export import main
from pointmix.engine import export
from pointmix.models.segmenter import create_segmenter
from tests.conformance.test_contract import ONE_STAGE, TWO_STAGES

F64 = dict(dtype=torch.float64)
UPPER = dict(global_centers_per_side=(1,), table_size=(8,))
FAMILIES = {
    "coc_tiny": ONE_STAGE,
    "fec_small": TWO_STAGES | dict(dims=(8, 8), heads=(2, 2), head_dim=(4, 4)),  # pools between stages
    "hcformer_tiny": ONE_STAGE | UPPER,
    "pointmlp": dict(dim=8, expansion=(2,), pre_blocks=(1,), pos_blocks=(1,), num_classes=10),
    "pointmlp_coc": dict(dim=8, expansion=(2,), pre_blocks=(1,), pos_blocks=(1,), num_classes=10),
}


def model_of(name: str, **kwargs) -> torch.nn.Module:
    """Biases and scales away from where they start, so that all of them matter."""
    model = pointmix.create_model(name, **FAMILIES[name] | kwargs).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def clouds(*numbers: int) -> PointSet:
    ptr = [0, *torch.tensor(numbers).cumsum(0).tolist()]
    return PointSet(torch.randn(ptr[-1], 3, **F64), torch.randn(ptr[-1], 2, **F64), ptr)


def images(*sizes: tuple[int, int]) -> PointSet:
    """Partial images; the first pixel is there."""
    masks = [torch.rand(size) < 0.4 for size in sizes]
    for mask in masks:
        mask[0, 0] = True
    return PointSet.from_images([torch.randn(3, *size, **F64) for size in sizes], masks)


def check(model: torch.nn.Module, example: torch.Tensor | PointSet, *others: torch.Tensor | PointSet) -> None:
    with torch.no_grad():
        program = export.load_program(export.save_program(export.export_program(model, example), {}))
        for x in (example, *others):
            torch.testing.assert_close(program(x), model(x), rtol=1e-9, atol=1e-9)


def test_every_model_is_of_a_family_that_is_tested():
    tested = {name.split("_")[0] for name in FAMILIES}
    assert {name.split("_")[0] for name in pointmix.list_models()} == tested


@pytest.mark.parametrize("name", ["fec_small", "pointmlp_coc"])  # coc's steps are among fec's
def test_clouds_of_any_sizes(name):
    model = model_of(name, in_chans=2, coord_dims=3).double()
    check(model, clouds(50, 9), clouds(40), clouds(1, 2, 90, 3), clouds(30, 30))


@pytest.mark.parametrize("name", ["hcformer_tiny"])
def test_partial_images_of_any_sizes(name):
    model, whole = model_of(name).double(), PointSet.from_images(torch.randn(2, 3, 20, 24, **F64)).as_sparse()
    check(model, images((33, 40), (20, 32)), images((32, 32)), images((1, 1), (7, 50), (40, 33)), whole)


def test_any_number_of_images():
    """Of a side that windows do not divide; of others, see ONNX."""
    check(model_of("coc_tiny").double(), *(torch.randn(batch, 3, 37, 37, **F64) for batch in (2, 1, 5)))


def test_a_segmenter_of_any_number_of_images():
    backbone = {key: value for key, value in ONE_STAGE.items() if key != "num_classes"}
    model = create_segmenter("coc_tiny", 3, neck_dim=4, decoder_dim=4, **backbone).double().eval()
    check(model, *(torch.randn(batch, 3, 17, 20, **F64) for batch in (2, 1, 5)))


def test_outputs_of_a_detector_are_no_tensor(tmp_path):
    model = torch.nn.Module()
    model.forward = lambda x: [{"boxes": x}]
    with pytest.raises(ValueError, match="net.onnx: a Module gives no tensor; classifiers and segmenters can be"):
        pointmix.export_model(model, torch.randn(2, 3, 8, 8), tmp_path / "net.onnx")


@pytest.mark.filterwarnings("error::FutureWarning")
@pytest.mark.parametrize("name", ["hcformer_tiny"])
def test_onnx(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model, path = model_of(name).train(), tmp_path / "net.onnx"
    assert pointmix.export_model(model, torch.randn(1, 3, 32, 32), path, info={"classes": ["a"]}) < 1e-4
    assert model.training
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["pointmix"]) == {"classes": ["a"]}
    for batch in (1, 4):
        x = torch.randn(batch, 3, 32, 32)
        (logits,) = session.run(["logits"], {"images": x.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(logits), model.eval()(x), rtol=1e-4, atol=1e-4)


def test_a_file_of_clouds(tmp_path):
    model, path, found = model_of("pointmlp", in_chans=2).double(), tmp_path / "net.pt2", {"pointmix.json": ""}
    assert pointmix.export_model(model, clouds(30, 20), path, info={"classes": ["a", "b"]}) < 1e-9
    program = torch.export.load(path, extra_files=found).module()
    assert json.loads(found["pointmix.json"]) == {"classes": ["a", "b"]}
    with torch.no_grad():
        assert program(clouds(7)).shape == (1, 10)


def test_outputs_that_differ_are_not_written(tmp_path, monkeypatch):
    path = tmp_path / "net.pt2"
    path.write_bytes(b"previous")
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(ValueError, match="net.pt2: outputs differ from the network's by .*nothing is written"):
        pointmix.export_model(torch.nn.Flatten(), torch.randn(2, 3, 4, 4), path)
    assert path.read_bytes() == b"previous" and len(list(tmp_path.iterdir())) == 1


def test_a_network_of_timm(tmp_path, capsys):
    """Of no run, with weights that a file holds."""
    onnxruntime = pytest.importorskip("onnxruntime")
    model, weights, path = timm.create_model("resnet10t").eval(), tmp_path / "net.safetensors", tmp_path / "net.onnx"
    save_file(model.state_dict(), weights)
    assert main(["--model", "resnet10t", "--checkpoint", str(weights), "--out", str(path)]) == 0, capsys.readouterr()
    (logits,) = onnxruntime.InferenceSession(path).run(None, {"images": (x := torch.randn(3, 3, 176, 176)).numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--run", "{0}/run", "--out", "{0}/net.txt"], "net.txt: expected a file that ends in .pt2 or .onnx"),
        (["--run", "{0}/run", "--out", "{0}"], "expected a file that ends in .pt2 or .onnx"),
        (["--run", "{0}/run", "--out", "{0}/net.onnx", "--points"], "ONNX takes whole images of one size"),
        (["--run", "{0}/none", "--out", "{0}/net.pt2"], "none"),
        (["--run", "{0}/bad.safetensors", "--out", "{0}/net.pt2"], "bad.safetensors"),
        (["--out", "{0}/net.pt2"], "give one of --run and --model"),
        (["--run", "{0}/run"], "--out"),
    ],
)
def test_what_cannot_be_exported_is_one_line(flags, message, tmp_path, capsys):
    (tmp_path / "bad.safetensors").write_bytes(b"not a network")
    assert main([flag.format(tmp_path) for flag in flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error:") and error.count("\n") == 1 and message in error
    assert [file.name for file in tmp_path.iterdir()] == ["bad.safetensors"]

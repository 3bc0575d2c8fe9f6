"""Networks as files that run without their Python code: programs of `torch.export` (.pt2) and ONNX (.onnx)."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, ShapesCollection

from pointmix.io.registry import require
from pointmix.layouts.sparse import SparseGrid
from pointmix.pointset import PointSet
from pointmix.tasks.protocols import Info
from pointmix.utils.atomic import check_place, replacing

FORMATS = (".pt2", ".onnx")
INFO = "pointmix.json"  # the name of the info in a .pt2; in ONNX it is "pointmix" among the metadata
TOLERANCE = 1e-3  # of the largest output: another order of sums in float32 is far below it

Program = Callable[[Tensor | PointSet], Tensor]


def export_model(model: nn.Module, example: Tensor | PointSet, path: str | Path, *, info: Info | None = None) -> float:
    """Write a classifier, or a segmenter of images, as one file that runs without the code of the network.

    A .pt2 is loaded by `torch.export.load(path).module()`, of point sets after `import pointmix.models`, which
    registers their types and operators. Like any program it must come from someone you trust. An .onnx takes images
    only.

    Args:
        model: exported in evaluation mode; afterwards its mode is as before.
        example: images (B, C, H, W), and the file takes any number of images of this size; or a PointSet, and it takes
            any number of sets of any numbers of points: images of any sizes, whole or partial (`PointSet.as_sparse`),
            or clouds.
        path: ends in .pt2 or .onnx.
        info: JSON values to keep in the file.

    Returns:
        The largest difference between outputs of the file and of the network, on an input of another size than the
        example. It is computed before the file is written.

    Raises:
        ModuleNotFoundError: a library for ONNX is not installed.
        OSError: the file cannot be written; a previous file is intact.
        ValueError: another end of the path, point sets for ONNX, a network whose output is not one tensor, as that of a
            detector, or outputs that differ.
    """
    path = Path(path)
    check_export(path, points=isinstance(example, PointSet))
    if isinstance(example, PointSet):
        example = example.as_sparse()
        other: Tensor | PointSet = PointSet.cat([_every_second_point(example), example])
    else:
        example = example if len(example) > 1 else torch.cat([example, example])  # one image: a batch of always one
        other = torch.cat([example, torch.randn_like(example[:1])])
    with _evaluating(model):
        save, load = (save_onnx, load_onnx) if path.suffix == ".onnx" else (save_program, load_program)
        expected: object = model(other)
        if not isinstance(expected, Tensor):
            raise ValueError(
                f"{path}: a {type(model).__name__} gives no tensor; classifiers and segmenters can be exported"
            )
        data = save(export_program(model, example), info or {})
        found = load(data)(other)
    difference = float((found - expected).abs().max())
    if not difference <= TOLERANCE * max(float(expected.abs().max()), 1.0):
        raise ValueError(f"{path}: outputs differ from the network's by {difference:.2g}; nothing is written")
    with replacing(path) as file:
        file.write(data)
    return difference


def check_export(path: str | Path, *, points: bool) -> None:
    """Check the place and the end of an exported file, and its libraries, before there is anything to write.

    Args:
        points: whether the network is to take point sets.

    Raises:
        ModuleNotFoundError, OSError, ValueError: as `export_model`.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: expected a file that ends in {' or '.join(FORMATS)}")
    if path.suffix == ".onnx" and points:
        raise ValueError(f"{path}: ONNX takes whole images of one size; point sets go into a .pt2")
    if path.suffix == ".onnx":
        for library in ("onnx", "onnxscript", "onnxruntime"):
            require(library, path)
    check_place(path)


def export_program(model: nn.Module, example: Tensor | PointSet) -> ExportedProgram:
    """The graph of a network in evaluation mode; arguments as in `export_model`."""
    if isinstance(example, Tensor):
        return torch.export.export(model, (example,), dynamic_shapes=({0: Dim("batch", min=1)},))
    points, shapes = Dim("points"), ShapesCollection()
    shapes[example.pos], shapes[example.feat] = {0: points}, {0: points}
    if isinstance(example.layout, SparseGrid):
        sets = Dim("sets")
        shapes[example.layout.cell], shapes[example.layout.size] = {0: points}, {0: sets}
        shapes[example.ptr] = {0: sets + 1}
    else:
        shapes[example.ptr] = {0: Dim("bounds")}
    # else a graph of two sets or more would not take one
    with torch.fx.experimental._config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        return torch.export.export(model, (example,), dynamic_shapes=shapes)  # type: ignore[arg-type]


def save_program(program: ExportedProgram, info: Info) -> bytes:
    """A .pt2 file of a program, which loses its example inputs: torch cannot read stored point sets."""
    buffer = io.BytesIO()
    program.example_inputs = None
    torch.export.save(program, buffer, extra_files={INFO: json.dumps(info)})
    return buffer.getvalue()


def load_program(data: bytes) -> Program:
    """The program in a .pt2 file that was just written: reading one runs code in it."""
    program: Program = torch.export.load(io.BytesIO(data)).module()
    return program


def save_onnx(program: ExportedProgram, info: Info) -> bytes:
    """An ONNX file of a program on images.

    Constants are folded, and little else: torch's own optimization takes half of the time of an export, and onnxruntime
    does the same when it opens the file.
    """
    from onnxscript.optimizer import fold_constants, remove_unused_nodes

    logging.getLogger("onnxscript").setLevel(logging.ERROR)  # a line for every node that it leaves as it is
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*LeafSpec", FutureWarning)  # torch warns of its own code
        onnx = torch.onnx.export(
            program,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: "batch"},),  # its name; the program says that it is dynamic
            dynamo=True,
            verbose=False,
            optimize=False,
        )
    assert onnx is not None
    fold_constants(onnx.model)
    remove_unused_nodes(onnx.model)
    onnx.model.metadata_props["pointmix"] = json.dumps(info)
    data: bytes = onnx.model_proto.SerializeToString()
    return data


def load_onnx(data: bytes) -> Program:
    """The network in an ONNX file, run by onnxruntime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def run(x: Tensor | PointSet) -> Tensor:
        assert isinstance(x, Tensor)
        return torch.from_numpy(session.run(None, {"images": x.cpu().numpy()})[0]).to(x.device)

    return run


def _every_second_point(points: PointSet) -> PointSet:
    """The first, third, ... point of each set."""
    place = torch.arange(len(points.feat), device=points.ptr.device) - points.ptr[:-1][points.batch]
    return points.subset(place % 2 == 0)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)

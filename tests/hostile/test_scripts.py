"""The scripts: one line on stderr and exit code 2, and no memory for what is refused."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

import pointmix

SCRIPTS = Path(__file__).parents[2] / "scripts"
SMALL = dict(depths=[1, 1, 1, 1], dims=[4, 4, 4, 4], heads=2, head_dim=2)
BOMB, GROWTH = 256, 100  # MiB that each bomb asks for, and that refusing all of them may take


def write_run(path: str, **info: object) -> None:
    """Weights of a small network, with this metadata in place of the true ones."""
    net = pointmix.create_model("coc_tiny", **SMALL, num_classes=2)
    true = {
        "task": "classify_images",
        "name": "coc_tiny",
        "kwargs": SMALL,
        "classes": ["a", "b"],
        "in_chans": 3,
        "img_size": 32,
    }
    true |= {"mean": [0.5] * 3, "std": [0.5] * 3, "data": {}}
    Path(path).write_bytes(save(net.state_dict(), {key: json.dumps(value) for key, value in (true | info).items()}))


def squeezed(path: str, name: str, head: bytes) -> None:
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        with file.open(name, "w", force_zip64=True) as member:
            member.write(head)
            for _ in range(BOMB):
                member.write(bytes(1 << 20))


def write_bombs() -> list[str]:
    """Small files that ask for much; the calls that read them."""
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1024, 1024, %d), }" % BOMB
    header = header.ljust(117) + b"\n"
    squeezed("a.npz", "pos.npy", b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header)
    squeezed("a.pth", "x/data/0", b"")
    with h5py.File("a.h5", "w") as file:
        file.create_dataset("pos", (2**23, 3), "f8", chunks=(2**16, 3), compression="gzip")
    ply = b"ply\nformat binary_little_endian 1.0\nelement vertex 1000000000000\n"
    Path("a.ply").write_bytes(ply + b"".join(b"property float %c\n" % c for c in b"xyz") + b"end_header\n" + bytes(999))
    Image.new("1", (12_000, 10_000)).save("a.png")
    write_run("blocks.safetensors", kwargs=SMALL | {"depths": [10**9, 1, 1, 1]})
    write_run("dims.safetensors", kwargs=SMALL | {"dims": [8192] * 4})
    laughs = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
    laughs += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))
    Path("a.yaml").write_text(laughs)
    clouds = [f"PointSet.from_file({name!r})" for name in ("a.npz", "a.h5", "a.ply", "a.png")]
    runs = [f"load_run({name!r})" for name in ("blocks.safetensors", "dims.safetensors")]
    return [*clouds, *runs, "load_torch('a.pth')", "read_mask('a.png', (8, 8))", "parse(['--config=a.yaml'], Config)"]


MEASURE = """
import json, resource, sys
from PIL import Image
Image.MAX_IMAGE_PIXELS = None  # no help from Pillow
from pointmix import PointSet
from pointmix.io import read_mask
from pointmix.engine.checkpoint import load_run
from pointmix.engine.flags import parse
from pointmix.tasks.classify_images import ClassifyImagesConfig as Config
from pointmix.io.torch_files import load_torch
import h5py, plyfile, pointmix.models
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
for call in json.loads(sys.argv[1]):
    try:
        eval(call)
        print("taken:", call)
    except ValueError as e:
        print("refused:", call, len(str(e).splitlines()))
print(peak() - before)
"""


def test_refused_bombs_take_no_memory(folder):
    calls = write_bombs()
    assert max(path.stat().st_size for path in folder.iterdir()) < 20e6
    env = os.environ | {"POINTMIX_MAX_ARRAY_BYTES": str(100 << 20)}
    call = [sys.executable, "-c", MEASURE, json.dumps(calls)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120, env=env)
    *lines, growth = done.stdout.splitlines()
    assert lines == [f"refused: {call} 1" for call in calls], done.stderr
    assert int(growth) < GROWTH


def main_of(name: str) -> Callable[[list[str]], int]:
    spec = importlib.util.spec_from_file_location(f"hostile_{name}", SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look there for their module
    spec.loader.exec_module(module)
    return module.main


CASES: list[tuple[str, str, str]] = [  # script, arguments, what the line must say
    ("predict", "--run run.safetensors huge.png", "huge.png: the image of 12000 x 10000 has 120000000 pixels"),
    ("predict", "--run run.safetensors a.png --mask huge.png", "cannot read mask huge.png: the image of 12000"),
    ("predict", "--run run.safetensors pipe.png", "pipe.png is a pipe"),
    ("predict", "--run run.safetensors \x1b[31m.png", r"no image file \x1b[31m.png"),
    ("predict", "--run blocks.safetensors a.png", "kwargs.depths in its metadata is 1000000000"),
    ("predict", "--run deep.safetensors a.png", "deep.safetensors was not written by a run"),
    ("predict", "--run a.npy a.png", "a.npy is not a safetensors file"),
    ("predict", "--run gone a.png", "no such file: gone"),
    (
        "predict",
        "--run task.safetensors a.png",
        r"task.safetensors: no task '\x1b[31mos.system' is registered, expected one of",
    ),
    ("predict", "--run run.safetensors a.png --import os.nothing", "--import os.nothing: No module named"),
    ("predict", "--model coc_tiny --checkpoint page.pth a.png", "not a readable checkpoint: it is a web page"),
    ("predict", "--model coc_tiny --checkpoint code.pth a.png", "code.pth is not a readable checkpoint"),
    ("predict", "--model test_vit --checkpoint page.pth a.png", "not a readable checkpoint: it is a web page"),
    ("predict", "--model hf-hub:someone/model a.png", "no model 'hf-hub:someone/model'"),
    ("predict", "--run run.safetensors a.png --topk 0", "--topk must be at least 1"),
    ("predict", "--run run.safetensors a.png --device toaster", "no device 'toaster'"),
    ("predict", "--run run.safetensors a.png --clusters .", "cannot write .: it is a folder"),
    ("explain", "huge.png --run run.safetensors --out b.png", "huge.png: the image of 12000 x 10000"),
    ("explain", "cloud.ply --model pointmlp --out b.png", "cloud.ply: the file is cut off: its header"),
    ("explain", "a.png --run run.safetensors --out .", "cannot write .: it is a folder"),
    ("explain", "a.png --run run.safetensors --out a.npy/b.png", "a.npy is a file, expected a folder"),
    ("describe", "coc_gigantic", "coc_gigantic"),
    ("evaluate", "--run blocks.safetensors", "kwargs.depths in its metadata is 1000000000"),
    ("evaluate", "--run run.safetensors --data.root gone", "data.root: no folder gone"),
    ("evaluate", "--run run.safetensors --out a.npy/b.json", "a.npy is a file, expected a folder"),
    ("train_image", "--config laughs.yaml", "laughs.yaml has 100003 values"),
    ("train", "--config laughs.yaml", "--task is missing, expected one of classify_images, classify_points"),
    ("train", "--task nothing", "no task 'nothing' is registered, expected one of classify_images"),
    ("train_image", "--config class.yaml", "class.yaml names a class under class_path"),
    ("train_points", "--config laughs.yaml", "laughs.yaml has 100003 values"),
    ("ablate", "laughs.yaml --base laughs.yaml", "laughs.yaml has 100003 values"),
]


@pytest.mark.parametrize("script, argv, why", CASES, ids=[f"{script} {argv!r}" for script, argv, _ in CASES])
def test_one_line_and_exit_code_2(script, argv, why, folder, refused, capsys):
    Image.new("RGB", (8, 8)).save("a.png")
    Image.new("1", (12_000, 10_000)).save("huge.png")
    os.mkfifo("pipe.png")
    np.save("a.npy", np.ones((6, 3)))
    write_run("run.safetensors")
    write_run("blocks.safetensors", kwargs=SMALL | {"depths": [10**9, 1, 1, 1]})
    write_run("task.safetensors", task="\x1b[31mos.system")
    deep = {key: "[" * 9999 for key in ("task", "name", "kwargs", "data", "classes", "in_chans")}
    Path("deep.safetensors").write_bytes(save({"w": torch.zeros(1)}, deep))
    Path("page.pth").write_text("<html>\x1b[31m404</html>")
    Path("code.pth").write_bytes(b"\x80\x02cos\nsystem\nX\x04\0\0\0echo\x85R.")
    Path("cloud.ply").write_text("ply\nformat ascii 1.0\nelement vertex 1000000000000\nproperty float x\nend_header\n1")
    Path("laughs.yaml").write_text("a: &a [1, 1]\nb: &b [*a, *a]\n" + "".join(f"c{i}: [*b]\n" for i in range(50_000)))
    Path("class.yaml").write_text("model: {kwargs: {x: {class_path: this.Zen}}}")

    def run() -> None:
        code = main_of(script)(argv.split())
        out, err = capsys.readouterr()
        assert code == 2 and "Traceback" not in err, (code, err)
        (line,) = [line for line in err.splitlines() if not line.startswith("warning: ")]
        assert line.startswith("error: ") and line.isprintable()
        raise ValueError(line)

    assert why in refused(run)


def test_names_of_classes_are_shown_without_terminal_codes(folder, capsys):
    Image.new("RGB", (8, 8)).save("a.png")
    write_run("run.safetensors", classes=["\x1b[31mred", "blue"])
    assert main_of("predict")(["--run", "run.safetensors", "a.png"]) == 0
    out = capsys.readouterr().out
    assert "\x1b[31mred" not in out and r"\x1b[31mred" in out

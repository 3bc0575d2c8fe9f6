"""The modules of nn can be imported first and alone: none imports timm, whose import brings in our models, and only the
heads of detectors, which are torchvision's, import torchvision."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import importlib, pkgutil, sys
import pointmix.nn
names = [module.name for module in pkgutil.walk_packages(pointmix.nn.__path__, "pointmix.nn.")]
assert "pointmix.nn.block" in names and "pointmix.nn.mixers.base" in names
detect = [name for name in names if name.startswith("pointmix.nn.heads.detect.")]
for name in sorted(set(names) - set(detect)):
    importlib.import_module(name)
assert detect and not {"timm", "torchvision", "pointmix.models"} & set(sys.modules)
for name in detect:
    importlib.import_module(name)
assert not {"timm", "pointmix.models"} & set(sys.modules)
import timm
assert timm.is_model("coc_tiny")
"""


def test_nn_imports_no_models():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr

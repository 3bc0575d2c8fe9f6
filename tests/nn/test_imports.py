"""The modules of nn can be imported first and alone: none imports timm, whose import brings in our models."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import importlib, pkgutil, sys
import pointmix.nn
names = [module.name for module in pkgutil.walk_packages(pointmix.nn.__path__, "pointmix.nn.")]
assert "pointmix.nn.block" in names and "pointmix.nn.mixers.base" in names
for name in sorted(names):
    importlib.import_module(name)
assert not {"timm", "torchvision", "pointmix.models"} & set(sys.modules)
import timm
assert timm.is_model("coc_tiny")
"""


def test_nn_imports_no_models():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr

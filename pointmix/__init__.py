"""Images, whole or partial, as sets of points, and networks whose only spatial operation is clustering."""

import importlib

from pointmix.pointset import PointSet
from pointmix.utils import torchvision_ops as _torchvision  # noqa: F401  before anything imports torchvision
from pointmix.utils.lazy import when_imported

__version__ = "0.1.0"
__all__ = ["PointSet", "create_model", "list_models", "load_reference"]

# timm takes as long to import as torch, so it comes with the first use of a model; whoever imports timm itself
# finds our models registered there.
_LATER = {"create_model": "models", "list_models": "models", "load_reference": "models.weights"}


def __getattr__(name: str):
    if name not in _LATER:
        raise AttributeError(f"module 'pointmix' has no attribute {name!r}")
    return getattr(importlib.import_module(f"pointmix.{_LATER[name]}"), name)


when_imported("timm", lambda _: importlib.import_module("pointmix.models"))

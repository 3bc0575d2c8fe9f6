"""Images, partial images and point clouds as sets of points, and networks whose only spatial operation is clustering."""

from pointmix import _torchvision  # noqa: F401  before anything imports torchvision
from pointmix.models import create_model, list_models
from pointmix.models.weights import load_reference
from pointmix.pointset import PointSet

__version__ = "0.1.0"
__all__ = ["PointSet", "create_model", "list_models", "load_reference"]

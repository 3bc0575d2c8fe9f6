"""The package as a user imports it."""

from __future__ import annotations

import subprocess
import sys
from importlib import resources

import pytest

import pointmix


@pytest.mark.parametrize("name", ["data", "explain", "io", "layouts", "models", "nn", "ops", "profile", "tasks"])
def test_rooms_are_attributes(name):
    module = getattr(pointmix, name)
    assert module.__name__ == f"pointmix.{name}" and name in dir(pointmix) and name in pointmix.__all__


def test_transforms_are_those_of_data():
    from pointmix import transforms

    assert transforms is pointmix.data.transforms is pointmix.transforms
    assert set(transforms.__all__) >= {"compose", "dropout", "rotate", "translate"}
    assert all(hasattr(transforms, name) for name in transforms.__all__)


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="module 'pointmix' has no attribute 'transform'"):
        pointmix.transform  # noqa: B018
    with pytest.raises(ImportError):
        from pointmix import nothing  # noqa: F401


def test_the_import_loads_no_more_than_it_needs():
    code = "import sys, pointmix; print(*[m for m in sys.argv[1:] if m in sys.modules])"
    heavy = ["timm", "h5py", "plyfile", "matplotlib", "sklearn", "torchvision", "pointmix.models", "pointmix.data"]
    result = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_the_package_is_typed():
    assert resources.files(pointmix).joinpath("py.typed").is_file()

"""The package as a user imports it."""

from __future__ import annotations

import json
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


HEAVY = """accelerate h5py matplotlib numba plyfile scipy sklearn timm torch torchvision pointmix.models""".split()
COMMANDS = """--help | --version | no_command | train --help | train image --help | train points --help
train segment --help | train detect --help | train image --no_flag 3 | train detect --epochs many
train --task segment --help | train image --config no_recipe | recipes --help | recipes cifar | recipes no_such_text
ablate --help | ablate ablations/* --jobs many | describe --help | describe coc_tiny --img_size large | push --help
push RUN NAME --no_flag | export --help | export --no_flag | predict --help | predict cat.jpg --no_flag
predict cat.jpg --topk many | evaluate --help | evaluate RUN --no_flag | explain --help
explain cat.jpg --no_flag""".replace("\n", " | ").split(" | ")
PROBE = """
import contextlib, io, json, sys
import pointmix

commands, heavy = map(json.loads, sys.argv[1:])
imported = [name for name in heavy if name in sys.modules]
from pointmix.commands.main import main

codes = {}
for command in commands:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            codes[command] = main(command.split())
        except SystemExit as e:
            codes[command] = e.code
print(json.dumps([imported, codes, [name for name in heavy if name in sys.modules]]))
"""


def test_the_import_and_help_and_wrong_flags_load_no_more_than_they_need():
    """torch takes more than a second to import, timm and torchvision three more."""
    command = [sys.executable, "-c", PROBE, json.dumps(COMMANDS), json.dumps(HEAVY)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    imported, codes, loaded = json.loads(result.stdout)
    good = ("--help", "--version", "recipes cifar")
    assert codes == {line: 0 if line.endswith(good) else 2 for line in COMMANDS}
    assert imported == loaded == []


def test_the_package_is_typed():
    assert resources.files(pointmix).joinpath("py.typed").is_file()

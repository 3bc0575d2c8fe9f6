"""Every number that a constructor takes has its range: also one that is added later."""

from __future__ import annotations

import inspect
import math
import re
from functools import partial

import pytest
import torch

import pointmix
from pointmix.models.backbone import PointBackbone
from pointmix.models.coc import ContextClusters
from pointmix.models.hcformer import HCFormer
from pointmix.models.pointmlp import PointMLP
from pointmix.nn.block import Block
from pointmix.nn.cluster_pool import ClusterPool
from pointmix.nn.curvature import Curvature
from pointmix.nn.mixers.context import ContextCluster
from pointmix.nn.mixers.group import GroupCluster
from pointmix.nn.mixers.hierarchical import ClusterMixer
from pointmix.nn.norm import PointNorm
from pointmix.nn.reducer import Reducer
from pointmix.nn.residual import LinearNorm, Residual
from pointmix.nn.stage import Stage
from pointmix.tasks.classify_points.voting import Voting

SHALLOW = dict(depths=(1, 1), dims=(8, 8), mlp_ratios=(2, 2), windows_per_side=(2, 1), centers_per_side=(2, 2))
HEADS = SHALLOW | dict(heads=2, head_dim=4)
POOLS = dict(dim_in=4, dim_out=4, kernel=3, stride=2, padding=1)
CONSTRUCTORS = {
    PointBackbone: dict(SHALLOW, mixer=lambda i, dim: None),
    ContextClusters: HEADS,
    HCFormer: HEADS | dict(global_centers_per_side=(2, None), table_size=(8, 4)),
    PointMLP: {},
    Block: dict(dim=8, mixer=None, mlp_ratio=2, drop_path=0.1, layer_scale=1.0),
    ClusterMixer: dict(
        dim=8, heads=2, head_dim=4, centers=4, table_size=4, global_centers=4, upper_table_size=2, relative_pos_dims=2
    ),
    ClusterPool: POOLS,
    ContextCluster: dict(dim=8, heads=2, head_dim=4),
    Curvature: {},
    GroupCluster: dict(dim=8, head_dim=4, neighbors=4),
    LinearNorm: dict(dim_in=4, dim_out=4),
    PointNorm: dict(dim=4),
    Reducer: POOLS,
    Residual: dict(dim=4, ratio=1.0),
    Stage: dict(reducer=torch.nn.Identity(), blocks=[], windows_per_side=1, centers_per_side=2),
    Voting: dict(model=torch.nn.Identity()),
}


def numbers(make):
    """(argument, whether it is whole, how many of it there are or None) of each numeric argument."""
    for name, parameter in inspect.signature(make).parameters.items():
        said = str(parameter.annotation)
        if "Callable" not in said and re.search(r"\b(int|float)\b", said):
            several = None
            if said.startswith(("Sequence", "tuple")):
                several = len(CONSTRUCTORS[make].get(name, parameter.default))
            yield name, "float" not in said, several


CASES = [(make, *case) for make in CONSTRUCTORS for case in numbers(make)]


@pytest.mark.parametrize("make, name, whole, several", CASES, ids=lambda x: getattr(x, "__name__", str(x)))
def test_every_number_has_a_range(make, name, whole, several):
    given = CONSTRUCTORS[make]
    make(**given)
    for value in (math.nan, math.inf, -1, True, "many", *([1.5] if whole else [])):
        given = given | {name: value if several is None else (value,) * several}
        with pytest.raises(ValueError, match=rf"{name.removesuffix('s')}\w* must be") as e:
            make(**given)
        assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "name, kwargs, message",
    [
        ("coc_tiny", dict(heads=0), "heads must be at least 1, got 0"),
        ("coc_tiny", dict(heads=(4, 4, 8, 0)), r"heads must be at least 1, got \(4, 4, 8, 0\)"),
        ("coc_tiny", dict(dims=32), "dims must be a list with a value for each stage, got 32"),
        ("coc_tiny", dict(depths=3), "depths must be a list with a value for each stage, got 3"),
        ("coc_tiny", dict(depths=()), r"depths must be a list with a value for each stage, got \(\)"),
        ("coc_tiny", dict(dims="wide"), "dims must be a whole number at least 1|dims must be a list"),
        ("coc_tiny", dict(stem=(4, 4)), r"stem must be the kernel, stride and padding .* got \(4, 4\)"),
        ("coc_tiny", dict(stem=4), "stem must be the kernel, stride and padding of the first reducer, got 4"),
        ("coc_tiny", dict(drop_path_rate=1.0), "drop_path_rate must be at least 0 and below 1, got 1.0"),
        ("coc_tiny", dict(mlp_ratios=(0.01, 4, 4, 4)), "mlp_ratio 0.01 of 32 channels leaves no hidden channel"),
        ("fec_small", dict(num_classes=-1), "num_classes must be at least 0, got -1"),
        (
            "hcformer_tiny",
            dict(global_centers_per_side=(4, 4, 0, None)),
            r"global_centers_per_side must be at least 1, got \[4, 4, 0\]",
        ),
        ("hcformer_tiny", dict(windows_per_side=(7, 7)), "windows_per_side has 2 values for 4 stages"),
        ("pointmlp", dict(expansion=2), "expansion must be a list with a value for each stage, got 2"),
        ("pointmlp", dict(ratio=0.001), "ratio 0.001 of 128 channels leaves no hidden channel"),
        ("pointmlp", dict(drop_rate=1.5), "drop_rate must be at least 0 and below 1, got 1.5"),
    ],
)
def test_models_name_what_is_wrong(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        pointmix.create_model(name, **kwargs)


@pytest.mark.parametrize("name", ["coc_tiny", "pointmlp_elite"])
def test_classes_of_a_new_classifier(name):
    reset = partial(pointmix.create_model(name).reset_classifier)
    with pytest.raises(ValueError, match="num_classes must be at least 0, got -3"):
        reset(-3)

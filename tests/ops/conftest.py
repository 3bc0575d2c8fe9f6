from __future__ import annotations

import pytest
import torch

from pointmix.ops import use_backend
from pointmix.ops.dispatch import BACKENDS, OPERATIONS
from pointmix.ops.ragged import counts_to_ptr


def sets(*parts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat(parts), counts_to_ptr(torch.tensor([len(p) for p in parts]))


def lattice(*sides: int) -> torch.Tensor:
    return torch.cartesian_prod(*(torch.arange(float(s)) for s in sides)).reshape(-1, len(sides))


def clouds() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Ragged batches of positions, many of them with points that are equally far or coincide."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    def shuffled(x: torch.Tensor) -> torch.Tensor:
        return x[torch.randperm(len(x), generator=generator)]

    return {
        "ragged": sets(normal(37, 3), normal(1, 3), normal(70, 3), normal(5, 3)),
        "plane": sets(normal(50, 2), normal(20, 2) * 1e-3),
        "line": sets(normal(40, 1), normal(3, 1)),
        "five dimensions": sets(normal(60, 5), normal(30, 5)),
        "lattice": sets(lattice(9, 9), shuffled(lattice(5, 7)), lattice(1, 2)),
        "cube": sets(shuffled(lattice(4, 4, 4))),
        "equal": sets(torch.full((9, 3), 2.5), torch.zeros(4, 3)),
        "one point": sets(normal(1, 3)),
        "three of each": sets(shuffled(normal(15, 3).repeat(3, 1)), shuffled(normal(4, 3).repeat(3, 1))),
        "a crowd and a few": sets(torch.cat([normal(60, 3) * 1e-4, normal(6, 3) + 5])),
        "far away": sets(normal(40, 3) + 1000, normal(40, 3) * 1e6),
        "tiny": sets(normal(40, 3) * 1e-19),
    }


CLOUDS = clouds()


@pytest.fixture(params=CLOUDS)
def cloud(request: pytest.FixtureRequest) -> tuple[torch.Tensor, torch.Tensor]:
    return CLOUDS[request.param]


@pytest.fixture(params=["torch", *OPERATIONS["knn"].implementations])
def backend(request: pytest.FixtureRequest):
    """Every backend of neighborhoods in turn; its value is the name and the device to try it on."""
    there = BACKENDS[request.param]
    if not there.installed:
        pytest.skip(there.problem)
    device = "cuda" if there.name == "triton" else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip(f"{there.name} needs a GPU: a few small cases run in its interpreter, see test_triton.py")
    with use_backend(there.name):
        yield there.name, device

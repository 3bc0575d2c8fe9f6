"""Maps of one number a point: class activation, and the attention of timm's transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pointmix.explain.blocks import nearest_points
from pointmix.explain.page.scene import Scene
from pointmix.explain.page.view import Index, Lattice, ValueMap, as_bytes, index
from pointmix.pointset import PointSet

FUSED = "fused_attn"  # of timm's attention layers: whether they use one kernel


def class_maps(scene: Scene, model: nn.Module, classes: Sequence[tuple[str, int]]) -> list[ValueMap]:
    """Class activation: the share of each point i of the last stage in the logit of a class, y_c.

        share_i = sum_k A_ik dy_c / dA_ik,   A the features that the head gets

    Where the head takes the mean over n points and maps it linearly, as in CoC, FEC and HCFormer, this is
    w_c . A_i / n: the class activation map of Zhou et al., CVPR 2016, divided by n, and the shares and the bias add up
    to the logit. A head of maxima, linear maps and ReLUs, as in PointMLP, is linear near A, so that the shares and a
    constant add up to the logit, too. For other heads it is HiResCAM (Draelos and Carin, 2020), which is Grad-CAM
    (Selvaraju et al., ICCV 2017) without averaging the gradients over the map, and without its ReLU.

    Args:
        classes: name and index of each class.

    Returns:
        a map for each class; none if the network has no features of points or cells before its head, as transformers
        that read their class token alone.
    """
    head: Callable[[Tensor | PointSet], Tensor] | None = getattr(model, "forward_head", None)
    forward: Callable[[Tensor | PointSet], Tensor | PointSet] | None = getattr(model, "forward_features", None)
    if head is None or forward is None or not classes:
        return []
    as_points: Callable[[Tensor | PointSet], PointSet] | None = getattr(model, "as_points", None)
    with torch.no_grad():
        # of an image batch our networks give maps; of its points, points
        found = forward(scene.x if as_points is None else _as_set(scene.x, model))
    maps = []
    for name, label in classes:
        with torch.enable_grad():
            feat = (found.feat if isinstance(found, PointSet) else found).detach().requires_grad_()
            logit = head(found.with_feat(feat) if isinstance(found, PointSet) else feat)[0, label]
            (gradient,) = torch.autograd.grad(logit, feat)
        share = (feat * gradient).detach().float()
        title = f"class activation: {name}"
        if isinstance(found, PointSet):
            near = index(nearest_points(found, 0, scene.pos).numpy())
            maps.append(_value_map(title, share.sum(1), near))
        elif (cells := _cells(share, model)) is not None:
            maps.append(_value_map(title, cells.flatten(), _nearest_cell(scene.points, cells.shape)))
    return maps


@torch.no_grad()
def attention_maps(scene: Scene, model: nn.Module) -> list[ValueMap]:
    """Attention of the class token to each patch, the mean over heads, in each block of a transformer of timm's; none
    for other networks."""
    if getattr(model, "cls_token", None) is None:
        return []
    found: list[Tensor] = []
    with _attention(model, found):
        model(scene.x)
    prefix, (height, width) = int(model.num_prefix_tokens), _grid(model)  # type: ignore[arg-type]
    maps = []
    for i, attention in enumerate(found, start=1):
        if attention.ndim == 4 and attention.shape[-1] == prefix + height * width:  # (1, heads, tokens, tokens)
            patches = attention[0, :, 0, prefix:].float().mean(0)
            near = _nearest_cell(scene.points, (height, width))
            maps.append(_value_map(f"attention, block {i}", patches, near))
    return maps


@contextmanager
def _attention(model: nn.Module, found: list[Tensor]) -> Iterator[None]:
    """Within the block the attention of every layer is appended to `found`: timm's layers compute it in a module
    `attn_drop`, unless it is hidden in one kernel."""
    fused = [module for module in model.modules() if getattr(module, FUSED, False)]
    drops = [module for name, module in model.named_modules() if name.endswith("attn_drop")]
    hooks = [drop.register_forward_hook(lambda module, args, output: found.append(output)) for drop in drops]
    try:
        for module in fused:
            setattr(module, FUSED, False)
        yield
    finally:
        for module in fused:
            setattr(module, FUSED, True)
        for hook in hooks:
            hook.remove()


def _as_set(x: Tensor | PointSet, model: nn.Module) -> PointSet:
    mode = getattr(model, "coord_mode", "inclusive")
    return x if isinstance(x, PointSet) else PointSet.from_batch(x, coord_mode=mode)


def _cells(share: Tensor, model: nn.Module) -> Float[Tensor, "h w"] | None:
    """The sum over channels in each cell of a map, or patch of a transformer; None if the head does not read them."""
    if share.ndim == 4:  # timm says where a network has its channels last
        return share[0].sum(-1 if getattr(model, "output_fmt", "NCHW") == "NHWC" else 0)
    prefix, (height, width) = int(getattr(model, "num_prefix_tokens", 0)), _grid(model)
    if share.ndim != 3 or share.shape[1] != prefix + height * width or not share[0, prefix:].any():
        return None
    return share[0, prefix:].sum(-1).view(height, width)


def _grid(model: nn.Module) -> tuple[int, int]:
    """Patches along both sides, of a transformer for images of one size."""
    size = getattr(getattr(model, "patch_embed", None), "grid_size", None) or (0, 0)
    return int(size[0]), int(size[1])


def _nearest_cell(lattice: object, shape: Sequence[int]) -> Index:
    """The cell of a coarser map in which each shown pixel lies."""
    assert isinstance(lattice, Lattice)
    rows, columns = np.divmod(lattice.pixel.astype(np.int64), lattice.width)
    return index(rows * shape[0] // lattice.height * shape[1] + columns * shape[1] // lattice.width)


def _value_map(name: str, values: Float[Tensor, "P"], nearest: Index) -> ValueMap:
    numbers = values.double().cpu().numpy()
    low, high = float(numbers.min()), float(numbers.max())
    return ValueMap(name, as_bytes((numbers - low) / max(high - low, 1e-300)), nearest, low, high)

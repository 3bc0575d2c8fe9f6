"""torchvision's operators, with or without its binary."""

from __future__ import annotations

import importlib

import pytest
import torch

from pointmix.utils import torchvision_ops as _torchvision


def plain_nms(boxes, scores, threshold):
    """The same by two loops over Python numbers."""
    order = sorted(range(len(boxes)), key=lambda i: -scores[i])  # sorted is stable: equal scores keep their order
    kept = []
    for i in order:
        for j in kept:
            a, b = boxes[i], boxes[j]
            overlap = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
            if union and overlap / union > threshold:
                break
        else:
            kept.append(i)
    return kept


def random_boxes(count, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator, dtype=dtype)
    return torch.cat([corner, corner + 0.4 * torch.rand(count, 2, generator=generator, dtype=dtype)], dim=1)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("count", [1, 2, 60, 300])  # 300: several blocks
def test_nms_equals_the_plain_twin(count, threshold):
    boxes, scores = random_boxes(count, seed=count), torch.rand(count, generator=torch.Generator().manual_seed(1))
    expected = plain_nms(boxes.tolist(), scores.tolist(), threshold)
    for call in (_torchvision.nms, torch.ops.torchvision.nms):
        got = call(boxes, scores.double(), threshold)
        assert got.dtype == torch.int64 and got.tolist() == expected


def test_equal_scores_keep_the_first():
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2], [5, 5, 6, 6]])
    assert _torchvision.nms(boxes, torch.ones(3), 0.5).tolist() == [0, 2]


def test_equal_scores_in_several_blocks_keep_the_first():
    boxes, scores = random_boxes(400, seed=5), torch.randint(3, (400,), generator=torch.Generator().manual_seed(2))
    assert _torchvision.nms(boxes, scores.double(), 0.2).tolist() == plain_nms(boxes.tolist(), scores.tolist(), 0.2)


def test_chains_are_followed_to_their_end():
    low = torch.arange(300, dtype=torch.float64)  # each box overlaps its neighbors only
    boxes = torch.stack([low, 0 * low, low + 1.5, 0 * low + 1], dim=1)
    assert _torchvision.nms(boxes, -low, 0.1).tolist() == list(range(0, 300, 2))


def test_a_threshold_met_exactly_is_kept():
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 1]])  # IoU 0.5
    assert _torchvision.nms(boxes, torch.tensor([0.9, 0.8]), 0.5).tolist() == [0, 1]
    assert _torchvision.nms(boxes, torch.tensor([0.9, 0.8]), 0.49).tolist() == [0]


def test_no_box_and_boxes_without_area():
    assert _torchvision.nms(torch.zeros(0, 4), torch.zeros(0), 0.5).shape == (0,)
    points = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 2, 2]])
    assert _torchvision.nms(points, torch.tensor([0.3, 0.2, 0.1]), 0.5).tolist() == [0, 1, 2]


def test_half_precision_is_judged_in_float32():
    boxes = torch.tensor([[0.0, 0, 300, 300], [0, 0, 300, 299]], dtype=torch.float16)  # areas beyond float16
    assert _torchvision.nms(boxes, torch.tensor([0.9, 0.8], dtype=torch.float16), 0.5).tolist() == [0]


@pytest.mark.parametrize("boxes, scores", [((3, 5), (3,)), ((3, 4), (2,)), ((4,), (1,)), ((3, 4), (3, 1))])
def test_other_shapes_are_refused(boxes, scores):
    with pytest.raises(ValueError, match=r"boxes \(N, 4\) and scores \(N,\)"):
        _torchvision.nms(torch.zeros(boxes), torch.zeros(scores), 0.5)


def test_torchvision_takes_it():
    from torchvision.ops import batched_nms, nms

    boxes, scores = random_boxes(40, seed=3, dtype=torch.float32), torch.rand(40)
    assert nms(boxes, scores, 0.3).tolist() == plain_nms(boxes.tolist(), scores.tolist(), 0.3)
    groups = torch.arange(40) % 2
    kept = batched_nms(boxes, scores, groups, 0.3).tolist()
    for group in (0, 1):
        members = [i for i in range(40) if i % 2 == group]
        alone = plain_nms(boxes[group::2].tolist(), scores[group::2].tolist(), 0.3)
        assert [i for i in kept if i % 2 == group] == [members[i] for i in alone]


def test_a_second_import_registers_nothing_twice():
    importlib.reload(_torchvision)
    assert torch.ops.torchvision.nms(torch.zeros(2, 4), torch.zeros(2), 0.5).tolist() == [0, 1]


def test_the_binary_is_tried_the_way_torchvision_does(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.ops, "load_library", asked.append)
    assert _torchvision._binary_loads()
    assert asked[0].rsplit("/", 1)[-1].startswith("_C.")

    def refuse(path):
        raise OSError("libcudart.so: cannot open shared object file")

    monkeypatch.setattr(torch.ops, "load_library", refuse)
    assert not _torchvision._binary_loads()


def test_nothing_is_declared_where_the_binary_loads(monkeypatch):
    monkeypatch.setattr(_torchvision, "_binary_loads", lambda: True)
    monkeypatch.setattr(torch.library, "define", lambda *arguments: pytest.fail("declared beside the binary"))
    monkeypatch.setattr(_torchvision.torch.ops, "torchvision", object(), raising=False)
    _torchvision._declare_missing_operators()

"""The JSON of a page's content."""

from __future__ import annotations

import base64
import json

import numpy as np

from pointmix.explain.page.view import Epoch, Guess, Lattice, Reduced, ValueMap, View, as_bytes, index, to_json


def decoded(array):
    dtype = {"u8": "<u1", "u16": "<u2", "u32": "<u4", "f32": "<f4"}[array["dtype"]]
    return np.frombuffer(base64.b64decode(array["data"]), dtype).reshape(array["shape"])


def test_equal_arrays_are_stored_once_and_come_back():
    color = np.arange(12, dtype=np.uint8).reshape(4, 3)
    points = Lattice(4, 9, color, height=2, width=2, step=2, pixel=index(np.arange(4)))
    near = index(np.array([0, 70_000, 1, 0]))
    reduced = Reduced("x", np.zeros(4, np.uint8), index(np.arange(4)), color[:, ::1].copy())
    maps = [ValueMap("a", np.array([1, 2], np.uint8).astype(">u1"), near, -1.5, 2.0)]
    view = View("t", "s", ["n"], "cat", "lattice", points, [Epoch("", [Guess("cat", 0.5)], [], reduced, maps)])
    content = json.loads(json.dumps(to_json(view)))
    assert content["version"] == 1 and content["truth"] == "cat" and content["notes"] == ["n"]
    points, (epoch,) = content["points"], content["epochs"]
    assert points["pixel"] == epoch["reduced"]["nearest"] and points["color"] == epoch["reduced"]["color"]
    assert len(content["arrays"]) == 5 and epoch["guess"] == [{"name": "cat", "probability": 0.5}]
    found = content["arrays"][epoch["maps"][0]["nearest"]]
    assert found["dtype"] == "u32" and decoded(found).tolist() == [0, 70_000, 1, 0]
    assert content["arrays"][points["pixel"]]["dtype"] == "u16"
    np.testing.assert_array_equal(decoded(content["arrays"][points["color"]]), color)


def test_bytes_are_rounded_and_clipped():
    assert as_bytes(np.array([-1, 0, 0.5, 1, 2.0])).tolist() == [0, 0, 128, 255, 255]

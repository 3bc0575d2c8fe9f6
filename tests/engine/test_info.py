from __future__ import annotations

import json

import pytest

from pointmix.engine.info import check_kwargs, read_info

INFO = {"task": "classify_images", "name": "coc_tiny", "kwargs": {"dims": [8, 16]}, "classes": ["a", "Ü"]}
INFO |= {"in_chans": 1, "img_size": 8, "mean": [0.5], "std": [0.2], "data": {"source": "folder"}, "x": None}


def texts(**changes) -> dict[str, str]:
    return {key: json.dumps(value) for key, value in (INFO | changes).items()} | {"format": "pt"}


def test_what_was_written_is_read():
    assert read_info(texts()) == INFO
    assert read_info(texts(in_chans=3, mean=[0.1])) == INFO | {"in_chans": 3, "mean": [0.1]}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"classes": "ab"}, "classes in its metadata is 'ab', expected a list of names"),
        ({"in_chans": True}, "in_chans in its metadata is True, expected a number of channels"),
        ({"std": [0.0]}, r"std in its metadata is \[0.0\], expected a list of positive numbers"),
        ({"mean": [0.1, 0.2]}, "mean in its metadata has 2 values for 1 channels"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        read_info(texts(**changes))


@pytest.mark.parametrize("key", ["task", "name", "kwargs", "data", "classes", "in_chans", "img_size", "mean", "std"])
def test_every_key_is_needed(key):
    with pytest.raises(ValueError, match=f"its metadata has no '{key}'"):
        read_info({k: v for k, v in texts().items() if k != key})


def test_an_unknown_task_is_named():
    with pytest.raises(
        ValueError, match="no task 'count_points' is registered, expected one of classify_images, .* --i"
    ):
        read_info(texts(task="count_points"))


def test_missing_keys_and_size(monkeypatch):
    with pytest.raises(ValueError, match="its metadata has no 'kwargs'"):
        read_info({"task": '"classify_images"', "name": '"coc_tiny"'})
    monkeypatch.setenv("POINTMIX_MAX_METADATA_BYTES", "50")
    with pytest.raises(ValueError, match="the metadata has .* bytes, more than the limit of 50"):
        read_info(texts())


def test_numbers_are_bounded_by_the_weights():
    kwargs = {"dims": [64, 20_000], "drop": 0.1, "bias": True, "act": "gelu", "deep": {"k": [8]}}
    check_kwargs(kwargs, values=20_000)
    with pytest.raises(ValueError, match="kwargs.dims in its metadata is 20000; its weights have 19999 values"):
        check_kwargs(kwargs, values=19_999)
    with pytest.raises(ValueError, match="kwargs.deep.k in its metadata is inf"):
        check_kwargs({"deep": {"k": [float("inf")]}}, values=10**9)
    with pytest.raises(ValueError, match="img_size in its metadata is 9460, expected the side of an image"):
        check_kwargs({"img_size": [224, 9460]}, values=10**9)

from __future__ import annotations

import os

import pytest
import torch
from torch import nn

from pointmix.utils.limits import DEFAULTS, TooLarge, check_array, check_limit, limit, parameters_at_most, regular_file


def test_an_environment_variable_sets_another_limit(monkeypatch):
    assert limit("ARRAY_BYTES") == DEFAULTS["ARRAY_BYTES"] == 2**31
    monkeypatch.setenv("POINTMIX_MAX_ARRAY_BYTES", "100")
    check_array((5, 5), 4, "xyz")
    with pytest.raises(TooLarge, match=r"xyz \(5, 6\) has 120 bytes, .* 100; .* POINTMIX_MAX_ARRAY_BYTES$"):
        check_array((5, 6), 4, "xyz")
    monkeypatch.setenv("POINTMIX_MAX_ARRAY_BYTES", "")
    check_array((5, 6), 4, "xyz")


def test_sizes_that_overflow_are_too_large():
    with pytest.raises(TooLarge):
        check_array((2**40, 2**40), 8, "xyz")
    check_limit("IMAGE_PIXELS", DEFAULTS["IMAGE_PIXELS"], "the image")


@pytest.mark.parametrize("text", ["-1", "0", "1.5", "many", "1e9", "9" * 19])
def test_limits_that_are_no_numbers(text, monkeypatch):
    monkeypatch.setenv("POINTMIX_MAX_IMAGE_PIXELS", text)
    with pytest.raises(ValueError, match="POINTMIX_MAX_IMAGE_PIXELS is .*, expected a positive whole number"):
        limit("IMAGE_PIXELS")


def test_only_regular_files_are_files(tmp_path):
    (tmp_path / "a").write_text("x")
    (tmp_path / "link").symlink_to("a")
    os.mkfifo(tmp_path / "pipe")
    assert regular_file(str(tmp_path / "link")) == tmp_path / "link"
    for name, message in (("pipe", "a pipe, a socket or a device, not a regular mask"), (".", "is a folder")):
        with pytest.raises(ValueError, match=message):
            regular_file(tmp_path / name, "mask")
    with pytest.raises(FileNotFoundError, match="no mask .*gone"):
        regular_file(tmp_path / "gone", "mask")


def test_a_network_much_larger_than_its_weights_is_not_built_to_its_end():
    built = []

    class Layer(nn.Linear):
        def __init__(self) -> None:
            super().__init__(100, 100)
            built.append(self)

    with parameters_at_most(2, 10_100):
        Layer()
    built.clear()
    with pytest.raises(TooLarge, match="the weights, 2 tensors of 10100 values"), parameters_at_most(2, 10_100):
        nn.Sequential(*[Layer() for _ in range(10_000)])
    assert 4 < len(built) < 200
    built.clear()
    with pytest.raises(TooLarge), parameters_at_most(10**6, 10):
        nn.Linear(10**4, 2000)  # 80 MB, if it were filled
    nn.Linear(10, 10**5 + 1)  # no longer watched
    assert torch.nn.modules.module._global_parameter_registration_hooks == {}

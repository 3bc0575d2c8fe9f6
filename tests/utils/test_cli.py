from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch

from pointmix.utils.cli import exit_code


@pytest.mark.parametrize("kind", [ValueError, FileNotFoundError, ImportError, ChildProcessError])
def test_bad_input_is_one_line_without_terminal_codes(kind, capsys, monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", None)  # restored at the end

    def work() -> None:
        warnings.warn("of\n\x1b[2Ja class", stacklevel=1)
        raise kind("cannot read\n  \x1b[31mcat.png\x07")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert exit_code(work) == 2
    assert capsys.readouterr().err == "warning: of \\x1b[2Ja class\nerror: cannot read \\x1b[31mcat.png\\x07\n"


@pytest.mark.parametrize(
    "work, line",
    [
        (lambda: np.empty(10**15), "error: not enough memory: Unable to allocate"),
        (lambda: torch.empty(10**15), "error: not enough memory: .*allocate memory"),
        (lambda: [0] * 10**15, "error: not enough memory: MemoryError"),
    ],
)
def test_memory_that_does_not_suffice_is_one_line(work, line, capsys):
    assert exit_code(work) == 2
    err = capsys.readouterr().err
    assert re.match(line, err) and err.count("\n") == 1


def test_mistakes_of_the_program_pass_through():
    with pytest.raises(RuntimeError):
        exit_code(lambda: (_ for _ in ()).throw(RuntimeError("bug")))

"""Bad input of every kind, built here: each case must be answered with one line, in little time."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

SECONDS = 10
KINDS = (ValueError, OSError, ImportError)  # what scripts turn into a line and exit code 2


@pytest.fixture
def refused() -> Callable[[Callable[[], object]], str]:
    """Call something that must be refused, within SECONDS; the message."""

    def call(work: Callable[[], object]) -> str:
        def late(*_: object) -> None:
            raise KeyboardInterrupt(f"not answered within {SECONDS} s")  # which no reader catches

        usual = signal.signal(signal.SIGALRM, late)
        signal.alarm(SECONDS)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = work()
        except KINDS as e:
            message = str(e)
        except KeyboardInterrupt as e:
            pytest.fail(str(e))
        else:
            pytest.fail(f"it was taken: {result!r}"[:300])
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, usual)
        assert len(message) > 10 and message.isprintable(), repr(message)  # a newline cannot be printed
        assert len(message) < 1500
        assert "weights_only=False" not in message
        return message

    return call


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which the case is run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path

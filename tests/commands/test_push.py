from __future__ import annotations

import pytest

from pointmix.commands import push
from pointmix.commands.main import main
from pointmix.engine import hub


@pytest.fixture
def pushed(monkeypatch):
    """What is asked of the hub, in place of asking."""
    calls = []
    monkeypatch.setattr(hub, "push_to_hub", lambda *args, **given: calls.append((*args, given)) or "https://hub/commit")
    monkeypatch.setattr(hub, "save_pretrained", lambda *args, **given: calls.append((*args, given)) or [])
    return calls


def test_flags_become_arguments(pushed, capsys):
    flags = ["--license", "mit", "--private", "--revision", "try", "--commit_message", "A B", "--no_pictures"]
    assert main(["push", "runs/a", "me/x", *flags]) == 0
    given = {"private": True, "revision": "try", "commit_message": "A B", "license": "mit", "pictures": False}
    assert pushed == [("runs/a", "me/x", given)] and "https://hub/commit" in capsys.readouterr().out


def test_a_dry_run_only_writes(pushed, capsys):
    assert push.main(["runs/a", "me/x", "--dry_run", "out"]) == 0
    assert pushed == [("runs/a", "out", {"repo_id": "me/x", "license": None, "pictures": True})]
    assert "in out; nothing was uploaded" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["none", "me/x", "--dry_run", "out"], "error: no such file: none"),
        (["none", "me/x", "--dry_run", "out", "--private"], "error: --private: of an upload, and --dry_run uploads"),
        (["none", "me/x"], "error: uploading to me/x needs a token"),
        (["none"], "OWNER/NAME"),
    ],
)
def test_errors_are_one_line(argv, message, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert push.main(argv) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1

"""Actions that follow an import."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys

import pytest

from pointmix.utils.lazy import when_imported


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.delitem(sys.modules, "later_module", raising=False)
    (tmp_path / "later_module.py").write_text("value = 1\n")
    yield tmp_path / "later_module.py"
    sys.modules.pop("later_module", None)


def test_at_once_for_an_imported_module():
    seen = []
    when_imported("json", seen.append)
    assert seen == [json]


def test_once_after_the_import(module):
    seen = []
    when_imported("later_module", lambda loaded: seen.append(loaded.value))
    assert seen == []
    assert importlib.util.find_spec("later_module")  # looking is not importing
    assert seen == []
    importlib.import_module("later_module")
    importlib.import_module("later_module")
    assert seen == [1]


def test_not_after_an_import_that_failed(module):
    seen = []
    module.write_text("raise ValueError('broken')\n")
    when_imported("later_module", seen.append)
    with pytest.raises(ValueError, match="broken"):
        importlib.import_module("later_module")
    assert seen == []


def test_two_actions_on_one_module(module):
    seen = []
    when_imported("later_module", lambda loaded: seen.append("first"))
    when_imported("later_module", lambda loaded: seen.append("second"))
    importlib.import_module("later_module")
    assert sorted(seen) == ["first", "second"]


def test_a_missing_module_stays_missing():
    when_imported("no_such_module_anywhere", print)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("no_such_module_anywhere")
    sys.meta_path[:] = [finder for finder in sys.meta_path if getattr(finder, "name", "") != "no_such_module_anywhere"]

from __future__ import annotations

from tests.engine.conftest import forks, no_pictures, one_thread, tiny_config

__all__ = ["forks", "no_pictures", "one_thread", "tiny_config"]

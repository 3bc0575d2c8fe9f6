from __future__ import annotations

from tests.engine.conftest import few_test_images, forks, no_pictures, one_thread, tiny_config

__all__ = ["few_test_images", "forks", "no_pictures", "one_thread", "tiny_config"]

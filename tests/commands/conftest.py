from __future__ import annotations

from tests.engine.conftest import few_test_images

__all__ = ["few_test_images"]

"""The registry of point-cloud sources. A source is one function in a module of your own:

    @register_source("cubes")
    def open_cubes(config: PointDataConfig, split: str) -> Source[NamedCloud]:
        ...

See `pointmix.data.source.Source` for what it returns; `split` is "train" or "test".
"""

from __future__ import annotations

from collections.abc import Callable

from pointmix.data.clouds.config import OF_SOURCES, PointDataConfig
from pointmix.data.clouds.named import NamedCloud
from pointmix.data.source import Source, SourceRegistry

SOURCES: SourceRegistry[PointDataConfig, str, Source[NamedCloud]] = SourceRegistry(OF_SOURCES)
register_source = SOURCES.register


def require_root(see: str = "") -> Callable[[PointDataConfig], None]:
    """A check for sources that read files: raises ValueError if data.root is not set.

    Args:
        see: where to read about the files, for the message.
    """

    def check(config: PointDataConfig) -> None:
        if not config.root:
            hint = f", see {see}" if see else ""
            raise ValueError(f"data.root is not set; expected the folder of {config.source}{hint}")

    return check

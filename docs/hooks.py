"""Called by mkdocs: files of the repository's root that are pages, too, and the links between them and docs/."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root."""
    for name in PAGES:
        files.append(File.generated(config, name, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """In the repository these pages are above docs/, on the site beside its pages."""
    if page.file.src_uri in PAGES:
        return re.sub(r"\]\(docs/", "](", markdown)
    return re.sub(rf"\]\((?:\.\./)+({'|'.join(map(re.escape, PAGES))})", _above(page), markdown)


def _above(page: Page) -> str:
    return "](" + "../" * page.file.src_uri.count("/") + r"\1"

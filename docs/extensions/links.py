"""MkDocs hook: links of the guides to files outside of the site become the file's path, which is checked to exist."""

import logging
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#|mailto:)([^)#\s]+)\)")
log = logging.getLogger("mkdocs.hooks.links")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Replace links that leave `docs/`; a missing file is a warning, which fails a strict build."""
    # Included pages (the changelog) have their links from the root of the checkout.
    included = re.fullmatch(r'--8<-- "([^"]+)"\s*', markdown)
    if included:
        markdown = (ROOT / included[1]).read_text()
    folder = ROOT if included else ROOT / "docs" / Path(page.file.src_uri).parent

    def replaced(match: re.Match[str]) -> str:
        text, target = match.groups()
        path = (folder / target).resolve()
        if not path.exists():
            log.warning("%s links to %s, which does not exist", page.file.src_uri, target)
            return match[0]
        if path.is_relative_to(ROOT / "docs") and path.is_file():
            here = (ROOT / "docs" / Path(page.file.src_uri)).parent
            up = "../" * len(here.relative_to(ROOT / "docs").parts)
            return f"[{text}]({up}{path.relative_to(ROOT / 'docs').as_posix()})"
        name = path.relative_to(ROOT).as_posix()
        pages = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
        if name in pages:
            return f"[{text}]({pages[name]})"
        return f"`{name}`" if text.strip("`") == name else f"{text} (`{name}`)"

    return LINK.sub(replaced, markdown)

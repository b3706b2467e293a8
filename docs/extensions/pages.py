"""MkDocs hook: what the pages of the site need beyond Markdown.

- A page that is only `--8<-- "FILE"` shows that file of the checkout.
- `@exports PACKAGE: first, second` lists all public names of a package in a section for each of its parts, the named
  parts first, so that a new name needs no edit of its page.
- Links to files outside of `docs/` become the file's path.
"""

import ast
import logging
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
EXPORTS = re.compile(r"^@exports ([\w.]+)(?:: ([\w, ]+))?$", re.MULTILINE)
INCLUDE = re.compile(r'--8<-- "([^"]+)"\s*')
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
log = logging.getLogger("mkdocs.hooks.pages")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Expand a page; a link to a missing file is a warning, which fails a strict build."""
    folder = (DOCS / page.file.src_uri).parent
    included = INCLUDE.fullmatch(markdown)
    if included:
        markdown, folder = (ROOT / included[1]).read_text(), ROOT
    markdown = EXPORTS.sub(lambda match: _exports(match[1], (match[2] or "").split(", ")), markdown)
    up = "../" * page.file.src_uri.count("/")
    return LINK.sub(lambda match: _link(match, folder, up, page.file.src_uri), markdown)


def _exports(package: str, first: list[str]) -> str:
    folder = ROOT.joinpath(*package.split("."))
    tree = ast.parse((folder / "__init__.py").read_text())
    parts: dict[str, list[str]] = defaultdict(list)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"{package}."):
            part = node.module.removeprefix(f"{package}.").split(".")[0]
            parts[part] += [alias.name for alias in node.names]
    listed = sorted(parts, key=lambda part: (first.index(part) if part in first else len(first), part))
    return "\n".join(_section(package, part, _public(tree, parts[part])) for part in listed)


def _public(tree: ast.Module, names: list[str]) -> list[str]:
    assigned = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
    return [name for name in names if name in ast.literal_eval(assigned["__all__"])]


def _section(package: str, part: str, names: list[str]) -> str:
    if not names:
        return ""
    path = ROOT.joinpath(*package.split("."), part)
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(source.read_text())) or ""
    entries = "".join(f"::: {package}.{name}\n    options: {{heading_level: 3}}\n\n" for name in names)
    return f"## {part.replace('_', ' ').capitalize()}\n\n{text}\n\n{entries}"


def _link(match: re.Match[str], folder: Path, up: str, page: str) -> str:
    text, target, anchor = match.groups()
    path = (folder / target).resolve()
    if not path.exists():
        log.warning("%s links to %s, which does not exist", page, target)
        return match[0]
    name = path.relative_to(ROOT).as_posix()
    if name in PAGES or (path.is_relative_to(DOCS) and path.is_file()):
        return f"[{text}]({up}{PAGES.get(name) or path.relative_to(DOCS).as_posix()}{anchor or ''})"
    return f"`{name}`" if text.strip("`") == name else f"{text} (`{name}`)"

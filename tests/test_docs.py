"""The site: docstrings have one dialect, and the pages show every public name and every setting."""

import ast
import importlib
import inspect
import io
import os
import re
import subprocess
import sys
import tokenize
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "fklit"
REFERENCE = ROOT / "docs" / "reference"
WITH_EXPORTS = (
    "fklit",
    "analytic",
    "callbacks",
    "correctors",
    "data",
    "emoji",
    "eqprop",
    "evaluation",
    "feynman_kac",
    "metrics",
    "molecules",
    "report",
    "rewards",
    "text",
)

SPHINX = {
    "a role": re.compile(r":(?:py:)?(?:class|func|meth|mod|attr|data|obj|exc|ref):`"),
    "double backticks": re.compile(r"(?<!`)``(?!`)"),
    "a literal block": re.compile(r"::[ \t]*$", re.MULTILINE),
    "a directive or field": re.compile(r"^[ \t]*(?:\.\. \w+::|:(?:param|returns?|raises|type|rtype)\b)", re.MULTILINE),
    "an underlined section": re.compile(r"^[ \t]*(?:Parameters|Returns|Raises)[ \t]*\n[ \t]*---", re.MULTILINE),
    "a colon in the first line of Returns, which reads as a type": re.compile(
        r"^[ \t]*Returns:[ \t]*\n[^\n:]*\w [^\n:]*:\s", re.MULTILINE
    ),
    "two names in one entry": re.compile(r"^ {4,}[a-z_]\w*, [a-z_]\w*: ", re.MULTILINE),
}


def texts(path: Path) -> list[tuple[int, str]]:
    """Docstrings and comments of a file, with their first lines."""
    source = path.read_text()
    found = [
        (node.value.lineno, node.value.value)
        for scope in ast.walk(ast.parse(source))
        for node in (getattr(scope, "body", None) if isinstance(getattr(scope, "body", None), list) else [])
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return found + [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]


def test_docstrings_and_comments_have_one_dialect() -> None:
    """Google style in Markdown: single backticks, no Sphinx."""
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {what}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, text in texts(path)
        for what, pattern in SPHINX.items()
        if pattern.search(text)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_dialect_check_finds_what_it_should() -> None:
    bad = (
        "see :class:`Reward`",
        "``x``",
        "like this::",
        ":param x: y",
        "Returns\n-------",
        "Returns:\n    What x holds: y.",
        "        a, b: two things",
    )
    assert [[what for what, pattern in SPHINX.items() if pattern.search(text)] for text in bad] == [
        [what] for what in SPHINX
    ]
    good = "`x`\n\n```python\ny = 1\n```\n\nArgs:\n    a: one, b: two.\n\nRaises:\n    ValueError, TypeError: never."
    assert not [what for what, pattern in SPHINX.items() if pattern.search(good)]


def test_what_contributing_names_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for name in re.findall(r"`((?:fklit|tests|docs|data|configs)/[\w./]+|[\w./]+\.toml|\w+\.txt)`", text):
        assert "NAME" in name or (ROOT / name).exists(), f"CONTRIBUTING names {name}"


def test_new_names_of_the_changelog_exist() -> None:
    """What an old name is said to have become can be imported."""
    text = (ROOT / "CHANGELOG.md").read_text().partition("## [0.2.0]")[2].partition("## [0.1.0]")[0]
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    names = {name for row in rows for name in re.findall(r"`(fklit(?:\.\w+)+)", row[-1])}
    assert len(names) > 100
    for name in sorted(names):
        found, parts = importlib.import_module("fklit"), name.split(".")
        for number, part in enumerate(parts[1:], 2):
            if not hasattr(found, part):
                importlib.import_module(".".join(parts[:number]))
            found = getattr(found, part)


def test_every_package_has_a_page() -> None:
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} - {"assets", "demo"}
    assert {page.stem for page in REFERENCE.glob("*.md")} == {"index", "fklit", *packages}


class Page(HTMLParser):
    """What a page shows: anchors, links, pictures and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.ids: set[str] = set()
        self.targets: list[str] = []
        self.text = ""
        self.feed(path.read_text())
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.ids.add(str(given["id"]))
        target = given.get("href" if tag in ("a", "link") else "src" if tag in ("img", "script") else "")
        if target:
            self.targets.append(target)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> dict[str, Page]:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {str(path.relative_to(folder)): Page(path) for path in folder.rglob("*.html")}


@pytest.mark.slow
def test_links_and_pictures_are_there(site) -> None:
    wrong = []
    for name, page in site.items():
        if name == "404.html":
            continue
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            path = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
            path = path / "index.html" if path.is_dir() else path
            known = {str(other.path): other.ids for other in site.values()}
            if not path.exists():
                wrong.append(f"{name}: {target}")
            elif parts.fragment and str(path) in known and unquote(parts.fragment) not in known[str(path)]:
                wrong.append(f"{name}: {target} (no such place)")
    assert not wrong, "\n".join(sorted(set(wrong)))


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_EXPORTS)
def test_every_public_name_is_shown(site, name) -> None:
    path = "fklit" if name == "fklit" else f"fklit.{name}"
    shown = site[f"reference/{name}/index.html"].ids
    public = {item for item in importlib.import_module(path).__all__ if item != "__version__"}
    assert not {item for item in public if f"{path}.{item}" not in shown}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "path"),
    [
        ("fklit", "fklit.steering.api.steer"),
        ("fklit", "fklit.correctors.guidance.api.correct"),
        ("steering", "fklit.steering.task.SteeringTask"),
        ("correctors", "fklit.correctors.guidance.task.GuidanceTask"),
    ],
)
def test_every_setting_is_shown_with_default_and_description(site, page, path) -> None:
    from fklit.correctors.guidance.settings import GuidanceSettings
    from fklit.sampling.arguments import described_fields
    from fklit.steering.settings import SteeringSettings

    module, _, name = path.rpartition(".")
    thing = getattr(importlib.import_module(module), name)
    settings = GuidanceSettings if "correctors" in path else SteeringSettings
    text = site[f"reference/{page}/index.html"].text
    # The signature in full and in order, then each description.
    start = text.index(f"{name}( ") if f"{name}( " in text else text.index(f"{name}(")
    position = start
    for parameter in inspect.signature(thing).parameters.values():
        position = text.index(f"{parameter.name}: ", position)
        if isinstance(parameter.default, int | float):
            assert text[position:].split(",")[0].endswith(f"= {parameter.default}"), parameter.name
    assert position - start < 3000
    for field, description in described_fields(settings).items():
        plain = " ".join(description.replace("`", "").split())
        assert plain in text, field

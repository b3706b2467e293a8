"""`import fklit` is quick, and the rooms of the house import only what they may (design: rules of the house)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "fklit"
HEAVY = {"diffusers", "transformers", "open_clip"}
METHODS = {"steering", "correctors", "eqprop"}


def _imports(path: Path, *, top_level: bool) -> set[str]:
    """Absolute names of the modules that a file imports, at its top level only or anywhere."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.walk(node)
    }
    inside = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.walk(node)
        if child is not node
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if top_level and (id(node) in inside or id(node) in typing_only):
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide which room is entered"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_rules_of_the_house(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0]
    anywhere = _imports(path, top_level=False)
    roots = {name.split(".")[0] for name in anywhere}
    at_top = {name.split(".")[0] for name in _imports(path, top_level=True)}
    assert not at_top & HEAVY, f"{path}: import {at_top & HEAVY} inside the function that needs it"
    if roots & HEAVY:
        assert room in {"pipelines", "emoji", "rewards", "analytic"}, f"{path}: {room} must not know {roots & HEAVY}"
    if room == "feynman_kac":
        foreign = roots - set(sys.stdlib_module_names) - {"torch", "jaxtyping", "fklit"}
        assert not foreign, f"{path}: the engine imports only torch, not {foreign}"
        assert all(n.startswith("fklit.feynman_kac") for n in anywhere if n.split(".")[0] == "fklit")
    if room in METHODS:
        others = {f"fklit.{method}" for method in METHODS - {room}}
        assert not any(name.startswith(tuple(others)) for name in anywhere), (
            f"{path}: the methods do not import another"
        )


def test_import_is_light() -> None:
    code = "import sys, fklit; print([m for m in ('torch','diffusers','transformers','open_clip') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_public_names_resolve() -> None:
    import fklit

    for name in fklit.__all__:
        assert getattr(fklit, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        fklit.no_such_name  # noqa: B018

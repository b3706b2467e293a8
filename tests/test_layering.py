"""The packages and their layers, by all imports: at module level, inside functions and under TYPE_CHECKING."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "fklit"
HEAVY = {"diffusers", "transformers", "open_clip"}

# What each package may import of the others. Whatever is not listed here is at the top: it may import everything.
ALLOWED = {
    "feynman_kac": set(),
    "assets": set(),
    "atomic": set(),
    "fingerprint": set(),
    "hyperparameters": set(),
    "learning_rate": set(),
    "pictures": set(),
    "pieces": set(),
    "renamed": set(),
    "wheels": set(),
    "checks": {"feynman_kac"},
    "rewards": {"assets", "checks", "feynman_kac", "renamed", "wheels"},
    "metrics": {"assets", "checks", "renamed", "rewards"},
    "pipelines": {"assets", "checks", "feynman_kac", "fingerprint", "pictures", "pieces"},
    "analytic": {"checks", "feynman_kac", "pipelines"},
    "sampling": {"checks", "feynman_kac", "fingerprint", "metrics", "pipelines", "rewards"},
    "steering": {"atomic", "checks", "feynman_kac", "pipelines", "rewards", "sampling"},
    "correctors": {
        *(
            "analytic",
            "atomic",
            "checks",
            "feynman_kac",
            "hyperparameters",
            "learning_rate",
            "metrics",
            "pipelines",
            "renamed",
            "rewards",
        ),
        "sampling",
    },
    "eqprop": {"assets", "checks", "feynman_kac", "hyperparameters", "renamed", "rewards"},
    "evaluation": {"atomic", "checks", "report"},
    "data": {"analytic", "atomic", "checks", "evaluation", "renamed"},
    "emoji": {
        *(
            "assets",
            "atomic",
            "checks",
            "data",
            "feynman_kac",
            "hyperparameters",
            "learning_rate",
            "metrics",
            "pipelines",
            "rewards",
        ),
    },
    "text": {
        *("assets", "atomic", "checks", "data", "feynman_kac", "fingerprint", "hyperparameters", "learning_rate"),
        *("pieces", "sampling"),
    },
    "molecules": {
        *("analytic", "assets", "atomic", "checks", "correctors", "data", "feynman_kac", "fingerprint"),
        *("hyperparameters", "metrics", "rewards", "sampling", "text", "wheels"),
    },
    "report": {"__init__", "atomic", "checks", "feynman_kac", "pictures", "renamed"},
    "callbacks": {
        *("atomic", "checks", "eqprop", "evaluation", "feynman_kac", "metrics", "renamed", "report"),
        *("rewards", "sampling"),
    },
}
APPLICATIONS = {"cli", "demo", "__init__", "__main__"}
KNOWS_MODELS = {"pipelines", "emoji", "rewards", "metrics", "text", "molecules"}


@cache
def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


@cache
def imported(path: Path, *, at_load: bool = False) -> set[str]:
    """Names that a file imports anywhere, or only those that loading the file imports."""
    tree = ast.parse(path.read_text())
    later = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        for child in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if at_load and id(node) in later:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides which package it is of"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names.add(full if full in modules() else node.module)
    return names


def package_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def test_packages_import_only_what_their_layer_may() -> None:
    wrong = []
    for module, path in modules().items():
        package = package_of(module)
        if package in APPLICATIONS or module.endswith(".__main__"):
            continue
        assert package in ALLOWED, f"add {package} to the layers"
        used = {package_of(name) for name in imported(path) if name.split(".")[0] == "fklit"}
        wrong += [f"{module} -> {other}" for other in used - {package, *ALLOWED[package]}]
    assert not wrong


def test_there_is_no_cycle() -> None:
    names = modules()
    edges = {name: {other for other in imported(path) if other in names} - {name} for name, path in names.items()}
    order: list[str] = []
    while edges:
        free = [name for name, needs in edges.items() if not needs & edges.keys()]
        assert free, f"import cycle among {sorted(edges)}"
        order += free
        for name in free:
            del edges[name]
    assert len(order) == len(names)


def test_the_engine_imports_torch_and_the_standard_library_only() -> None:
    for module, path in modules().items():
        if package_of(module) == "feynman_kac":
            roots = {name.split(".")[0] for name in imported(path)}
            assert not roots - set(sys.stdlib_module_names) - {"torch", "jaxtyping", "fklit"}, path


def test_libraries_of_models_are_known_to_few_packages_and_loaded_late() -> None:
    for module, path in modules().items():
        assert not {name.split(".")[0] for name in imported(path, at_load=True)} & HEAVY, f"{path}: import it later"
        if {name.split(".")[0] for name in imported(path)} & HEAVY:
            assert package_of(module) in KNOWS_MODELS, path


def test_files_are_small() -> None:
    lines = {path: len(path.read_text().splitlines()) for path in modules().values()}
    assert median(lines.values()) < 150
    assert not {str(path): count for path, count in lines.items() if count > 350}


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

"""The mutation tool: which faults it makes, and that a good test notices one where a poor test does not."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mutation.__main__ import draw, equivalents, reason
from mutation.operators import find_mutants
from mutation.table import markdown

SOURCE = '''"""Says 1 + 1 and True."""

import math
import warnings

__all__ = ["f", "g"]
Number = int | float


class Settings:
    """Holds 3."""

    size: int = 3
    rate: float = 0.5


def f(x: "Tensor[2]", y=True):
    """Return 1."""
    if x < 2 and not y:
        raise ValueError(f"{x + 1} is less than {2}")
    warnings.warn("two" + str(2), stacklevel=2)
    x.check(7)
    y += 1
    return (
        x.sum(dim=-1)
        - y
    )
'''


def faults(text: str) -> list[tuple[str, str, str]]:
    return [(m.operator, m.original, m.replacement) for m in find_mutants("f.py", text.encode())]


def test_every_fault_of_a_small_module() -> None:
    assert faults(SOURCE) == [
        ("integer plus one", "3", "4"),
        ("scale float", "0.5", "1.0"),
        ("swap True/False", "True", "False"),
        ("swap comparison", "x < 2", "x <= 2"),
        ("negate condition", "x < 2 and (not y)", "not (x < 2 and (not y))"),
        ("swap and/or", "x < 2 and (not y)", "x < 2 or not y"),
        ("integer plus one", "2", "3"),
        ("drop not", "not y", "y"),
        ("delete statement", "warnings.warn('two' + str(2), stacklevel=2)", "pass"),
        ("delete statement", "x.check(7)", "pass"),
        ("integer plus one", "7", "8"),
        ("delete statement", "y += 1", "pass"),
        ("swap arithmetic", "y += 1", "y -= 1"),
        ("integer plus one", "1", "2"),
        ("drop term", "x.sum(dim=-1) - y", "x.sum(dim=-1)"),
        ("swap arithmetic", "x.sum(dim=-1) - y", "x.sum(dim=-1) + y"),
        ("swap function", "sum", "mean"),
        ("move axis", "-1", "-2"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = b * c / d", ["b * c * d", "b / c"]),
        ("a = b @ c", []),
        ("a = -b ** 2.0", ["b ** 2.0", "b * 2.0", "4.0"]),
        ("a = 0.0 <= b != 1", ["0.0 < b != 1", "0.0 <= b == 1", "1.0", "2"]),
        ("a = [b for b in c if b]", ["not b"]),
        ("a = b if c is None else -3", ["c is not None", "-2"]),
        ("a = min(b.amax(axis=0), sum(c))", ["max", "amin", "1"]),
        ("a[1, :] = ~b & c", ["2", "~b | c", "b"]),
        ("a = isinstance(b, int | float) or cast('int', c)", ["isinstance(b, int | float) and cast('int', c)"]),
        ("a = 'b' + c", []),
        ("print(1)\nlogger.info(2)\nassert a, 3\na += 4", ["a -= 4", "pass", "5"]),
    ],
)
def test_operators(text: str, expected: list[str]) -> None:
    assert sorted(replacement for _, _, replacement in faults(text)) == sorted(expected)


def test_a_mutant_keeps_the_lines_and_the_rest() -> None:
    source = SOURCE.encode()
    for mutant in find_mutants("f.py", source):
        changed = mutant.apply(source)
        assert changed.count(b"\n") == source.count(b"\n")
        assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source))
        assert changed[: mutant.start] == source[: mutant.start]
        assert source.splitlines()[mutant.line - 1][mutant.column :].startswith(mutant.original.split("(")[0].encode())
    assert {m.function for m in find_mutants("f.py", source)} == {"", "f"}
    nested = find_mutants("f.py", b"class A:\n    def f(self):\n        def g(x=1): return [2 for _ in x]\n")
    assert {m.function for m in nested} == {"A.f.<locals>.g"}


def test_a_draw_is_uniform_over_the_package_and_repeats(tmp_path: Path) -> None:
    (tmp_path / "fklit/p/q").mkdir(parents=True)
    (tmp_path / "fklit/p/one.py").write_text("a = 1")
    (tmp_path / "fklit/p/q/many.py").write_text("a = [" + "1, " * 99 + "]")
    drawn = draw(tmp_path, ["p"], 30, seed=0)
    assert drawn == draw(tmp_path, ["p"], 30, seed=0) != draw(tmp_path, ["p"], 30, seed=1)
    assert len({mutant for _, mutant in drawn}) == 30
    assert {mutant.file for _, mutant in draw(tmp_path, ["p"], 100, seed=0)} == {"fklit/p/one.py", "fklit/p/q/many.py"}


def test_equivalent_faults_are_known_by_their_line_of_code(tmp_path: Path) -> None:
    (tmp_path / "known.toml").write_text(
        '[[mutant]]\nfile = "f.py"\ncode = "a = 1"\noriginal = "1"\nmutant = "2"\nreason = "a is unused"\n'
    )
    known = equivalents(tmp_path / "known.toml")
    (mutant,) = find_mutants("f.py", b"\na = 1")
    assert reason(mutant, "\na = 1", known) == "a is unused"
    assert reason(mutant, "\nb = 1", known) is None


def test_the_table_counts_verdicts() -> None:
    mutant = next(m for m in find_mutants("fklit/f.py", b"a = b | 2 > 1") if m.operator == "swap comparison")
    result = {"verdict": "killed", "test": "tests/p/test_f.py::test", "seconds": 1.5}
    text = markdown([(mutant, result), (mutant, {"verdict": "survived"})], {mutant: None})
    assert text.startswith("2 mutants: 1 killed, 1 survived.\n")
    assert "| f.py | 1 | `b \\| 2 > 1` → `b \\| 2 >= 1` | killed | `p/test_f.py::test` | 1.5 |" in text
    assert "1 killed, 1 equivalent." in markdown(
        [(mutant, result), (mutant, {"verdict": "survived"})], {mutant: "no one looks"}
    )


def test_a_test_notices_a_fault_or_does_not(tmp_path: Path) -> None:
    root = tmp_path / "root"
    files = {
        "fklit/__init__.py": "",
        "fklit/m.py": "def twice(x): return (lambda: 2 * x)()\n\ndef forever(x):\n    while x < 1:\n        x += 1",
        "tests/test_m.py": "from fklit.m import forever, twice\n\n"
        "def test_poor(): assert twice(0) == 0\n\ndef test_other(): forever(0)",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    code = """
import json, sys
from pathlib import Path
from mutation.__main__ import judge
from mutation.operators import find_mutants
from mutation.sandbox import Sandbox
root = Path(sys.argv[1])
sandbox = Sandbox(root, root.parent / "copy")
tests = sandbox.record(["tests"])
found = find_mutants("fklit/m.py", (root / "fklit/m.py").read_bytes())
chosen = {f"{m.original} -> {m.replacement}": m for m in found}
names = ("2 -> 3", "x += 1 -> pass")
print(json.dumps([tests, [judge(sandbox, chosen[name], ("tests",), tests, spare=0) for name in names]]))
"""
    command = [sys.executable, "-c", code, str(root)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    tests, (poor, stopped) = json.loads(done.stdout.splitlines()[-1])
    assert {name: called for name, (_, called) in tests.items()} == {
        "tests/test_m.py::test_poor": ["fklit/m.py:twice"],
        "tests/test_m.py::test_other": ["fklit/m.py:forever"],
    }
    assert (poor["verdict"], poor["test"]) == ("survived", "")
    assert (stopped["verdict"], stopped["test"]) == ("killed", "tests/test_m.py::test_other") and stopped["stopped"]
    assert (tmp_path / "copy/fklit/m.py").read_text() == files["fklit/m.py"]

"""Draws faults at random, and asks the tests of each package whether they notice.

    PYTHONPATH=tests python -m mutation                 # 60 mutants with seed 0, the figures of docs/mutation.md
    PYTHONPATH=tests python -m mutation --seed 1 --packages eqprop --count 20
    PYTHONPATH=tests python -m mutation --table         # print the table of what has run

Every mutant is one changed place of one file (see `operators`). The quick tests that call the changed function run
first, the fastest before the others, then all other tests of the package, the slow ones too. Results are kept in
`outputs/mutation`, a line a mutant: a run that was stopped goes on where it was. Faults that no test can notice because
they change nothing stand in `equivalent.toml` with the reason.
"""

import argparse
import hashlib
import json
import os
import random
import tempfile
import time
import tomllib
from dataclasses import asdict
from pathlib import Path

from mutation.operators import Mutant, find_mutants
from mutation.sandbox import Outcome, Sandbox, warm_up
from mutation.table import markdown

ROOT = Path(__file__).resolve().parents[2]
TESTS = {
    "feynman_kac": ("tests/feynman_kac",),
    "sampling": ("tests/sampling", "tests/steering", "tests/correctors/guidance"),
    "correctors": ("tests/correctors",),
    "eqprop": ("tests/eqprop",),
}


Tests = dict[str, tuple[float, list[str]]]
"""Seconds of each test and the functions it calls."""


def draw(root: Path, packages: list[str], count: int, seed: int) -> list[tuple[str, Mutant]]:
    """Return `count` mutants of each package, drawn uniformly without replacement over all of the package."""
    generator, drawn = random.Random(seed), []
    for package in packages:
        found: list[Mutant] = []
        for path in sorted((root / "fklit" / package).rglob("*.py")):
            found += find_mutants(path.relative_to(root).as_posix(), path.read_bytes())
        drawn += [(package, mutant) for mutant in generator.sample(found, count)]
    return drawn


def name_of(mutant: Mutant) -> str:
    """What identifies a mutant as long as its line stands where it is."""
    return f"{mutant.file}:{mutant.line}:{mutant.column} {mutant.original} -> {mutant.replacement}"


def equivalents(path: Path) -> list[dict[str, str]]:
    """Return the faults that change nothing: file, the line of code, original, mutant, and the reason."""
    return tomllib.loads(path.read_text()).get("mutant", [])


def reason(mutant: Mutant, source: str, known: list[dict[str, str]]) -> str | None:
    """Return why a mutant changes nothing, or None."""
    line = source.splitlines()[mutant.line - 1].strip()
    wanted = {"file": mutant.file, "code": line, "original": mutant.original, "mutant": mutant.replacement}
    return next((entry["reason"] for entry in known if wanted.items() <= entry.items()), None)


def recorded(sandbox: Sandbox, folders: tuple[str, ...], store: Path) -> Tests:
    """Return seconds and called functions of every quick test, of files that changed anew."""
    known = json.loads(store.read_text()) if store.exists() else {}
    tests: Tests = {}
    for folder in folders:
        for path in sorted((sandbox.folder / folder).rglob("test_*.py")):
            name = path.relative_to(sandbox.folder).as_posix()
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if known.get(name, {}).get("sha256") != digest:
                print(f"recording {name}", flush=True)
                known[name] = {"sha256": digest, "tests": sandbox.record([name], ["-m", "not slow"])}
                store.write_text(json.dumps(known))
            tests |= known[name]["tests"]
    return tests


def judge(
    sandbox: Sandbox,
    mutant: Mutant,
    folders: tuple[str, ...],
    tests: Tests,
    *,
    quick: bool = False,
    spare: float = 60.0,
) -> dict[str, object]:
    """Run tests on one mutant until one notices it.

    Args:
        sandbox: Where they run.
        mutant: The fault.
        folders: Where all tests of the package are.
        tests: Seconds and called functions of the quick ones.
        quick: Whether to run only those that call the changed function.
        spare: CPU seconds that those may take beyond three times what they take without the fault.

    Returns:
        The verdict, the test that noticed it, whether that test ended at all, and the seconds.
    """
    place = f"{mutant.file}:{mutant.function}"
    # What runs when a module loads may matter to any test.
    order = sorted((name for name in tests if not mutant.function or place in tests[name][1]), key=tests.__getitem__)
    path, start = sandbox.folder / mutant.file, time.perf_counter()
    source = path.read_bytes()
    path.write_bytes(mutant.apply(source))
    try:
        outcome = Outcome(passed=True, test="", stopped=False)
        if order:
            files = sorted({name.split("::")[0] for name in order})
            outcome = sandbox.test(files, order=order, seconds=spare + 3 * sum(tests[name][0] for name in order))
        if outcome.passed and not quick:
            outcome = sandbox.test(folders, omit=order, seconds=1800)
    finally:
        path.write_bytes(source)
    seconds = round(time.perf_counter() - start, 1)
    if outcome.passed:
        return {"verdict": "survived", "test": "", "stopped": False, "seconds": seconds}
    return {"verdict": "killed", "test": outcome.test, "stopped": outcome.stopped, "seconds": seconds}


def run(todo: list[tuple[str, Mutant]], sandbox: Sandbox, output: Path, results: Path, *, quick: bool) -> None:
    """Judge mutants one after the other; append a line for each to a file."""
    for number, (package, mutant) in enumerate(todo, 1):
        tests = recorded(sandbox, TESTS[package], output / "tests.json")
        result = judge(sandbox, mutant, TESTS[package], tests, quick=quick)
        line = json.dumps({"name": name_of(mutant), "package": package, **asdict(mutant), **result})
        with results.open("a") as file:
            file.write(line + "\n")
        noticed = f"{result['verdict']} {result['test']} in {result['seconds']} s"
        print(f"{number}/{len(todo)} {name_of(mutant)}: {noticed}", flush=True)


def main() -> None:
    """Run mutants, or print the table of those that ran."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--packages", nargs="+", choices=sorted(TESTS), default=list(TESTS))
    parser.add_argument("--count", type=int, default=15, help="mutants of each package")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--quick", action="store_true", help="only the quick tests that call the changed function")
    parser.add_argument("--retry", action="store_true", help="run the survivors again")
    parser.add_argument("--table", action="store_true", help="run nothing, print the table")
    parser.add_argument("--list", action="store_true", help="run nothing, print the mutants")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "mutation")
    options = parser.parse_args()

    mutants = draw(ROOT, options.packages, options.count, options.seed)
    results_file = options.output / f"seed{options.seed}.jsonl"
    lines = results_file.read_text().splitlines() if results_file.exists() else []
    results = {result["name"]: result for result in map(json.loads, lines)}
    known = equivalents(Path(__file__).with_name("equivalent.toml"))
    if options.list:
        for _, mutant in mutants:
            print(name_of(mutant))
        return
    if options.table:
        rows = [(mutant, results.get(name_of(mutant), {})) for _, mutant in mutants]
        print(markdown(rows, {mutant: reason(mutant, (ROOT / mutant.file).read_text(), known) for mutant, _ in rows}))
        return

    options.output.mkdir(parents=True, exist_ok=True)
    todo = []
    for package, mutant in mutants:
        verdict = results.get(name_of(mutant), {}).get("verdict")
        if verdict is None and reason(mutant, (ROOT / mutant.file).read_text(), known):
            continue  # no test can notice it
        if verdict is None or (options.retry and verdict == "survived"):
            todo.append((package, mutant))
    warm_up()
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        sandbox = Sandbox(ROOT, Path(folder) / "0")
        for package in {package for package, _ in todo}:
            recorded(sandbox, TESTS[package], options.output / "tests.json")
        children = []
        for job in range(1, options.jobs):
            if (child := os.fork()) == 0:
                other = Sandbox(ROOT, Path(folder) / str(job))
                run(todo[job :: options.jobs], other, options.output, results_file, quick=options.quick)
                os._exit(0)
            children.append(child)
        run(todo[:: options.jobs], sandbox, options.output, results_file, quick=options.quick)
        for child in children:
            os.waitpid(child, 0)


if __name__ == "__main__":
    main()

"""The wheel in an environment that holds the declared dependencies and nothing else, away from the repository."""

import os
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def dependencies(requirements):
    """Installed distributions that requirements pull in, by name, with those that these need in turn."""
    found, wanted = {}, [(Requirement(text), "") for text in requirements]
    seen = set()
    while wanted:
        requirement, extra = wanted.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        distribution = metadata.distribution(requirement.name)
        found[requirement.name] = distribution
        for chosen in ("", *requirement.extras):
            if (requirement.name, chosen) not in seen:
                seen.add((requirement.name, chosen))
                wanted += [(Requirement(text), chosen) for text in distribution.requires or ()]
    return found


def link(distributions, site_packages):
    """Makes distributions importable without installing them again (torch alone would take minutes)."""
    for distribution in distributions.values():
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."} - {"__pycache__"}:
            if not (site_packages / top).exists():
                (site_packages / top).symlink_to(distribution.locate_file(top))


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The Python of an environment with the wheel and its dependencies."""
    folder = tmp_path_factory.mktemp("packaging")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=200)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", symlinks=True)
    python = folder / "env" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, timeout=200)
    (site_packages,) = (folder / "env" / "lib").glob("python*/site-packages")
    (installed,) = metadata.distributions(name="fklit", path=[str(site_packages)])
    link(dependencies(text for text in installed.requires if "extra ==" not in text), site_packages)
    return python


def run(environment, *command, cwd):
    settings = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    settings |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [str(environment.parent / command[0]), *command[1:]]
    done = subprocess.run(command, cwd=cwd, env=settings, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_installed_command_samples_and_reports_outside_of_the_repository(environment, tmp_path):
    where = run(environment, "python", "-c", "import fklit; print(fklit.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(environment.parents[1])
    assert "debug/steering" in run(environment, "fklit", "configs", "list", cwd=tmp_path)
    copied = run(environment, "fklit", "configs", "copy", "debug/steering", cwd=tmp_path).strip()
    assert copied == "configs/debug/steering.yaml"
    run(environment, "fklit", "predict", "--config", copied, cwd=tmp_path)
    out = tmp_path / "outputs" / "debug" / "steering"
    assert len(list(out.glob("*/samples/*.png"))) == 4 and len(list(out.glob("*/record.json"))) == 2
    report = f"from fklit.report import write_report; write_report('report.html', steered={str(out)!r})"
    run(environment, "python", "-c", report, cwd=tmp_path)
    assert "a green heart" in (tmp_path / "report.html").read_text(encoding="utf-8")

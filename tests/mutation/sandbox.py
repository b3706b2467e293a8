"""A copy of the checkout in which tests run against changed sources, each time in a fresh fork of one warm process."""

import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from mutation.observe import Recorder, Selection

# Loaded once and inherited by every fork; nothing of the package under test may be among them.
WARM = (
    *("torch", "lightning.pytorch", "jsonargparse", "torchmetrics", "scipy.stats", "scipy.optimize"),
    *("transformers", "diffusers.pipelines.stable_diffusion", "diffusers.pipelines.stable_diffusion_xl"),
    *("transformers.models.clip.modeling_clip", "matplotlib.pyplot", "jaxtyping", "beartype"),
)
OPTIONS = (
    *("-q", "-x", "-p", "no:cacheprovider", "-o", "timeout=300"),
    *("-W", "ignore:Module already imported so cannot be rewritten"),  # plugins that the warm process knows
)


@dataclass(frozen=True)
class Outcome:
    """How tests ended.

    Attributes:
        passed: Whether all passed.
        test: The last test that ran: the one that failed, if one did.
        stopped: Whether the process died or ran out of its CPU seconds.
    """

    passed: bool
    test: str
    stopped: bool


class Sandbox:
    """A copy of all files of a checkout that git knows or does not ignore.

    Args:
        root: The checkout.
        folder: Where the copy is made; must not exist.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder.resolve()
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=root,
            capture_output=True,
            check=True,
            text=True,
        ).stdout.split("\0")
        for name in listed:
            if name and (root / name).is_file():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, self.folder / name)
        self._running = self.folder.with_suffix(".running")
        self._log = self.folder.with_suffix(".log")

    def record(self, paths: Sequence[str], arguments: Sequence[str] = ()) -> dict[str, tuple[float, list[str]]]:
        """Run tests on the unchanged sources; return for each its seconds and the functions it calls.

        Raises:
            RuntimeError: A test fails.
        """
        recorder, written = Recorder(self.folder), self.folder.with_suffix(".json")

        def run() -> int:
            code = int(pytest.main([*paths, *OPTIONS, *arguments], plugins=[recorder]))
            written.write_text(json.dumps(recorder.tests))
            return code

        code = self._fork(run, None)
        if code not in (0, 5):  # 5: no test is left by the selection
            raise RuntimeError(f"tests fail on the unchanged sources:\n{self._log.read_text()[-3000:]}")
        return json.loads(written.read_text())

    def test(
        self,
        paths: Sequence[str],
        *,
        order: list[str] | None = None,
        omit: Sequence[str] = (),
        seconds: float,
        arguments: Sequence[str] = (),
    ) -> Outcome:
        """Run tests until one fails.

        Args:
            paths: Files or folders.
            order: The tests of them to run; None for all.
            omit: Tests to leave out.
            seconds: CPU seconds they may take.
            arguments: Further arguments of pytest.

        Raises:
            RuntimeError: pytest cannot run at all.
        """
        self._running.write_text("collection")
        plugin = Selection(order, omit, self._running)
        code = self._fork(lambda: int(pytest.main([*paths, *OPTIONS, *arguments], plugins=[plugin])), seconds)
        if code == 4:
            raise RuntimeError(f"pytest does not understand its arguments:\n{self._log.read_text()[-3000:]}")
        return Outcome(passed=code in (0, 5), test=self._running.read_text(), stopped=code < 0)

    def _fork(self, action: Callable[[], int], seconds: float | None) -> int:
        """Run an action in a fork, in the copy; return its exit status, negative if a signal ended it."""
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            try:
                os.setsid()
                output = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(output, 1)
                os.dup2(output, 2)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                if seconds is not None:
                    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 5))
                os.chdir(self.folder)
                os.environ["PYTHONPATH"] = str(self.folder)
                os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # two mutants of one second and size share a stamp
                sys.dont_write_bytecode = True
                sys.path.insert(0, str(self.folder))
                found = importlib.util.find_spec("fklit")
                assert found and found.origin and found.origin.startswith(str(self.folder)), f"wrong package: {found}"
                code = action()
                sys.stdout.flush()
            except BaseException as error:
                os.write(2, repr(error).encode())
                os._exit(4)
            os._exit(code)
        status = os.waitpid(child, 0)[1]
        try:
            os.killpg(child, signal.SIGKILL)  # what it may have left behind
        except ProcessLookupError:
            pass
        return os.waitstatus_to_exitcode(status)


def warm_up() -> None:
    """Import the large libraries, so that forks need not."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
    os.environ.setdefault("MPLBACKEND", "Agg")
    os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", os.devnull)
    for name in WARM:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)

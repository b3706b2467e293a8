"""pytest plugins: which functions each test calls, and running tests in a given order."""

import sys
import threading
import time
from collections.abc import Collection, Generator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest


class Recorder:
    """Records for every test its seconds and the functions of the package that it calls in this process.

    Args:
        root: Of the checkout; functions are named `path:qualified name`.
        package: Folder in it whose functions count.
    """

    def __init__(self, root: Path, package: str = "fklit") -> None:
        self.tests: dict[str, tuple[float, list[str]]] = {}
        self._prefix = f"{root}/"
        self._inside = f"{root}/{package}/"
        self._seen: set[Any] = set()

    def _trace(self, frame: FrameType, event: str, argument: object) -> None:
        self._seen.add(frame.f_code)  # no local tracing: calls only, which is cheap

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Watch one test with its setup and teardown."""
        self._seen = set()
        start = time.perf_counter()
        threading.settrace(self._trace)
        sys.settrace(self._trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]
            called = {
                f"{code.co_filename.removeprefix(self._prefix)}:{_defined(code.co_qualname)}"
                for code in self._seen
                if code.co_filename.startswith(self._inside)
            }
            self.tests[item.nodeid] = (time.perf_counter() - start, sorted(called))


def _defined(name: str) -> str:
    """The function with a name of its own in which a lambda or comprehension stands."""
    parts = name.split(".")
    while parts[-1].startswith("<"):
        parts.pop()
        if parts and parts[-1] == "<locals>":
            parts.pop()
        if not parts:
            return ""
    return ".".join(parts)


class Selection:
    """Runs some tests only, in a given order, and says which one runs.

    Args:
        order: Names of the tests; None for all tests as they come.
        omit: Tests to leave out.
        running: File that always holds the name of the test at hand.
    """

    def __init__(self, order: list[str] | None, omit: Collection[str], running: Path) -> None:
        self._places = None if order is None else {name: place for place, name in enumerate(order)}
        self._omit = frozenset(omit)
        self._running = running

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Select and sort."""
        items[:] = [item for item in items if item.nodeid not in self._omit]
        if self._places is not None:
            items[:] = sorted(
                (item for item in items if item.nodeid in self._places), key=lambda item: self._places[item.nodeid]
            )

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Note the test, so that it is known also if the process dies."""
        self._running.write_text(nodeid)

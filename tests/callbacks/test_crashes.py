"""Runs that are killed, terminated, out of disk or damaged lose nothing and end byte for byte as if uninterrupted."""

import errno
import io
import json
import os
import random
import signal
import warnings
from pathlib import Path

import pytest
from tiny_runs import PROMPTS, contents, predict

from fklit import atomic
from fklit.callbacks.started_run import DamagedResultWarning
from fklit.cli.termination import STATUS, StopOnSigterm

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
MOMENTS = 20


class Writes:
    """Counts pieces of 256 bytes, renamings and flushings of the atomic writer; something happens at one of them."""

    def __init__(self, monkeypatch, at=None, happens=lambda: None):
        self.count, self.at, self.happens = 0, at, happens
        writes = self

        class Raw(io.FileIO):
            def write(self, data):
                return super().write(bytes(data)[: len(data) // 2] if writes.now() else data)

        def counted(function):
            def call(*args):
                self.now()
                return function(*args)

            return call

        monkeypatch.setattr(
            atomic, "open", lambda path, mode: io.BufferedWriter(Raw(path, mode[:1]), 256), raising=False
        )
        for name in ("replace", "fsync"):
            monkeypatch.setattr(os, name, counted(getattr(os, name)))

    def now(self):
        self.count += 1
        if self.count == self.at:
            self.happens()
        return False


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The files of an uninterrupted run, and how many moments its writing has."""
    out = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch:
        writes = Writes(patch)
        predict(out)
    assert writes.count > 100
    return contents(out), writes.count


def in_child(monkeypatch, out, at, happens):
    """Run in a process of its own, in which something happens at a moment of its writing; return its status."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            Writes(monkeypatch, at, happens)
            predict(out, callbacks=[StopOnSigterm()])
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def check_partial(out, expected):
    """What counts as done is whole."""
    for record in out.glob("*/record.json"):
        prompt = record.parent.name
        files = {name: content for name, content in expected.items() if name.startswith(prompt)}
        found = {f"{prompt}/{name}": content for name, content in contents(record.parent).items()}
        assert found.items() >= files.items()


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "SIGTERM"])
def test_a_run_that_is_stopped_while_it_writes_loses_nothing(whole, tmp_path, monkeypatch, signum):
    expected, moments = whole
    for number, at in enumerate(random.Random(int(signum)).sample(range(1, moments), MOMENTS)):
        out = tmp_path / str(number) / "out"
        out.parent.mkdir()
        status = in_child(monkeypatch, out, at, lambda: os.kill(os.getpid(), signum))
        # Before Lightning has begun to run, and after it has ended, SIGTERM ends a process as it always does.
        assert status in ((-9,) if signum == signal.SIGKILL else (STATUS, -signal.SIGTERM)), at
        check_partial(out, expected)
        if status == STATUS:
            assert not (out / "run.lock").exists() and not list(out.rglob("*.part"))
        predict(out)
        assert contents(out) == expected, at


@pytest.mark.slow
def test_a_full_disk_loses_nothing_and_says_which_file(whole, tmp_path, monkeypatch):
    expected, moments = whole

    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    for number, at in enumerate(random.Random(1).sample(range(1, moments), MOMENTS)):
        out = tmp_path / str(number) / "out"
        out.parent.mkdir()
        with monkeypatch.context() as patch:
            writes = Writes(patch, at, full)
            try:
                predict(out)
            except OSError as error:
                assert error.errno == errno.ENOSPC and str(out) in str(error.filename)
            else:
                assert writes.count >= at  # a folder that cannot be flushed is no error
        assert not list(out.rglob("*.part")) and not (out / "run.lock").exists()
        check_partial(out, expected)
        predict(out)
        assert contents(out) == expected, at


def damaged(content, how, generator):
    if how == "missing":
        return None
    if how == "empty":
        return b""
    if how == "truncated":
        return content[: generator.randrange(1, len(content) - 1)]
    place = generator.randrange(len(content))
    return content[:place] + bytes([content[place] ^ (1 << generator.randrange(8))]) + content[place + 1 :]


@pytest.mark.slow
def test_a_file_that_is_damaged_at_a_random_place_is_found_and_made_again(whole, tmp_path):
    expected, _ = whole
    out, generator = tmp_path / "out", random.Random(2)
    predict(out)
    names = [name for name in expected if name != "run.json" and not name.endswith(".jsonl")]
    found = 0
    for number in range(3 * MOMENTS):
        how = ("missing", "empty", "truncated", "flipped")[number % 4]
        name = generator.choice(names if how != "flipped" else [name for name in names if name.endswith(".png")])
        content = damaged(expected[name], how, generator)
        (out / name).unlink() if content is None else (out / name).write_bytes(content)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            predict(out)
        found += any(issubclass(warning.category, DamagedResultWarning) for warning in caught)
        assert contents(out) == expected, (name, how)
    # A missing record.json is a prompt that is not done, of which nothing is to be said.
    assert found >= 3 * MOMENTS - MOMENTS // 2


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("samples/0001.png", None, r"samples/0001\.png is missing"),
        ("samples/0000.png", b"", r"samples/0000\.png is empty"),
        ("grid.png", b"<html>", r"grid\.png cannot be read"),
        ("record.json", b"", r"record\.json cannot be read"),
        ("record.json", b"{}", r"record\.json cannot be read"),
        ("record.json", b'{"prompt": "two', r"record\.json cannot be read"),
        ("previews.npz", b"PK\x03\x04", r"previews\.npz cannot be read"),
        ("previews.npz", None, r"previews\.npz is missing"),
        ("metadata.jsonl", b"", r"metadata\.jsonl is empty"),
    ],
)
def test_damage_is_said_and_only_that_prompt_is_made_again(whole, tmp_path, name, content, fault):
    out = tmp_path / "out"
    predict(out)
    path = out / "00001" / name
    path.unlink() if content is None else path.write_bytes(content)
    before = (out / "00002" / "record.json").stat().st_mtime_ns
    with pytest.warns(DamagedResultWarning, match=rf"00001 is damaged and is sampled again: {fault}"):
        predict(out)
    assert contents(out) == whole[0] and (out / "00002" / "record.json").stat().st_mtime_ns == before


def test_a_record_with_too_few_numbers_is_damaged(whole, tmp_path):
    out = tmp_path / "out"
    predict(out)
    path = out / "00000" / "record.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"ancestors": []}))
    with pytest.warns(DamagedResultWarning, match=r"00000 is damaged and is sampled again: record\.json lacks"):
        predict(out)
    assert contents(out) == whole[0]


def test_a_damaged_run_json_is_written_again(whole, tmp_path):
    out = tmp_path / "out"
    predict(out)
    (out / "run.json").write_bytes(b"")
    with pytest.warns(DamagedResultWarning, match=r"run\.json is damaged and is written again"):
        predict(out)
    assert contents(out) == whole[0]
    (out / "run.json").write_bytes(b"")
    with pytest.raises(ValueError, match=r"got others \(run\.json is damaged\)"):
        predict(out, seed=1)


def test_every_file_and_every_new_folder_is_flushed(tmp_path, monkeypatch):
    files, folders = set(), set()
    fsync = os.fsync

    def record(descriptor):
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        (folders if path.is_dir() else files).add(path)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    predict(tmp_path / "out", prompts=PROMPTS[:1])
    out = tmp_path / "out"
    assert len(files) == len(contents(out))
    assert {tmp_path, out, out / "00000", out / "00000" / "samples"} <= folders

"""Whose a folder is when a run starts: settings that changed are named, and one run at a time writes to it."""

import json
import os
import socket
import subprocess
import sys

import pytest
from tiny_runs import PROMPTS, contents, predict

from fklit.callbacks.folder_lock import FolderLock
from fklit.report.differences import differences, flatten


def test_changed_settings_are_named_with_old_and_new_value(tmp_path):
    out = tmp_path / "out"
    predict(out)
    before = contents(out)
    with pytest.raises(ValueError, match=r"got others \(seed: 0 -> 7\); choose another --output_dir"):
        predict(out, seed=7)
    assert contents(out) == before


def test_differences():
    assert differences({"a": {"b": 1, "c": [1, 2]}}, {"a": {"b": 1, "c": (1, 2)}}) == ""
    old, new = {"a": {"b": 1}, "same": 1, "w": "0" * 64}, {"a": {"b": 2}, "same": 1, "w": "f" * 64, "new": None}
    assert differences(old, new) == "a.b: 1 -> 2, new: not set -> None, w: content 00000000 -> content ffffffff"
    assert differences({}, {str(n): n for n in range(9)}).endswith("5: not set -> 5 and 3 more")
    assert differences({"a": "x" * 100}, {"a": "y"}) == f"a: {'x' * 57}... -> y"
    assert flatten({"a": {}, "b": {"c": {"d": 1}}}) == {"a": {}, "b.c.d": 1}


def test_a_run_that_failed_before_its_first_result_does_not_keep_its_folder(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(RuntimeError, match="the reward is NaN"):
        predict(out, fails=RuntimeError("the reward is NaN"))
    assert (out / "run.json").is_file() and not (out / "run.lock").exists()
    predict(out, seed=1)
    predict(tmp_path / "fresh", seed=1)
    assert contents(out) == contents(tmp_path / "fresh")


@pytest.mark.slow
def test_a_second_run_into_a_folder_is_refused_by_name(tmp_path):
    out = tmp_path / "out"
    lock = FolderLock(out)
    assert lock.acquire() is None
    command = (
        "from pathlib import Path; from fklit.callbacks.folder_lock import FolderLock; "
        f"print(FolderLock(Path({str(out)!r})).acquire())"
    )
    said = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout
    assert f"got {out}, in use by process {os.getpid()} on {socket.gethostname()}" in said
    assert f"delete {out / 'run.lock'} if that run is dead" in said
    lock.release()
    assert not (out / "run.lock").exists()


def test_the_lock_of_another_machine_is_not_taken_over_and_refuses_before_anything_is_touched(tmp_path):
    out = tmp_path / "out"
    predict(out, prompts=PROMPTS[:2])
    before = contents(out)
    (out / "run.lock").write_text("12\nanother-machine\n")
    with pytest.raises(ValueError, match=r"in use by process 12 on another-machine; choose another --output_dir, or"):
        predict(out)
    assert {name: content for name, content in contents(out).items() if name != "run.lock"} == before
    (out / "run.lock").unlink()
    predict(out)


def test_the_lock_of_a_process_that_is_gone_is_taken_over_with_a_word(tmp_path, monkeypatch):
    out = tmp_path / "out"
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    out.mkdir()
    (out / "run.lock").write_text(f"{child.pid}\n{socket.gethostname()}\n")
    said = []
    monkeypatch.setattr("fklit.callbacks.folder_lock.rank_zero_info", said.append)
    predict(out)
    assert len(said) == 1 and said[0].startswith(f"Took over {out / 'run.lock'} of process {child.pid}")
    assert len(list(out.glob("*/record.json"))) == len(PROMPTS) and not (out / "run.lock").exists()


def test_what_a_record_lists_is_there(tmp_path):
    out = tmp_path / "out"
    predict(out, prompts=PROMPTS[:1])
    record = json.loads((out / "00000" / "record.json").read_text())
    assert {*record["files"], "record.json"} == set(contents(out / "00000"))

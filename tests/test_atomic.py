"""The one writer of results: complete files or none."""

import os
import stat
import threading

import pytest

from fklit.atomic import remove_leftovers, write_atomically, write_json_atomically, write_text_atomically


def test_a_failed_write_keeps_the_older_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), write_atomically(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
        raise RuntimeError
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_file_is_flushed_before_it_is_renamed_and_its_folder_after(tmp_path, monkeypatch):
    """A crash of the machine leaves the old file or the new one, never an empty one."""
    events = []
    replace, fsync = os.replace, os.fsync

    def record_fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            events.append("folder")
        else:
            events.append(("file", os.fstat(descriptor).st_size))
        fsync(descriptor)

    def record_replace(source, target):
        assert source.parent == target.parent  # a renaming is atomic within a file system only
        events.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    write_text_atomically(tmp_path / "file", "12345")
    assert events == [("file", 5), "rename", "folder"]


def test_a_folder_that_cannot_be_flushed_is_no_error(tmp_path, monkeypatch):
    def refuse(path, flags):
        raise PermissionError

    monkeypatch.setattr(os, "open", refuse)
    write_text_atomically(tmp_path / "file", "text")
    assert (tmp_path / "file").read_text() == "text"


def test_writers_at_the_same_time_do_not_mix(tmp_path):
    """Every temporary name is its own; the writer that ends last wins."""
    path, inner_done = tmp_path / "file", threading.Event()
    with write_atomically(path) as outer:
        outer.write(b"outer")
        thread = threading.Thread(target=lambda: (write_text_atomically(path, "inner"), inner_done.set()))
        thread.start()
        thread.join()
        assert inner_done.is_set() and path.read_bytes() == b"inner"
    assert path.read_bytes() == b"outer" and len(list(tmp_path.iterdir())) == 1


def test_text_and_json(tmp_path):
    path = tmp_path / "file"
    write_text_atomically(path, "ä\nb")
    assert path.read_bytes() == b"\xc3\xa4\nb"
    write_json_atomically(path, {"b": "ä", "a": [1, 2.5]})
    assert path.read_bytes() == b'{"b": "\xc3\xa4", "a": [1, 2.5]}\n'
    write_json_atomically(path, {"b": 1, "a": 2}, indent=2, sort_keys=True)
    assert path.read_text() == '{\n  "a": 2,\n  "b": 1\n}\n'


@pytest.mark.parametrize(
    ("content", "error"), [(float("nan"), ValueError), (float("inf"), ValueError), ({1}, TypeError)]
)
def test_json_that_is_none_leaves_the_older_file(tmp_path, content, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(error):
        write_json_atomically(path, [content])
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_leftovers_of_killed_processes_are_removed_when_old(tmp_path):
    old, young, other = tmp_path / ".a-1.part", tmp_path / ".a-2.part", tmp_path / "a.part"
    for path in (old, young, other):
        path.write_bytes(b"x")
    for path in (old, other):
        os.utime(path, (0, 0))
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "nowhere")
    assert not old.exists() and young.exists() and other.exists()


def test_unfinished_files_are_what_counts_as_leftovers(tmp_path):
    with pytest.raises(FileNotFoundError), write_atomically(tmp_path / "file"):
        (part,) = tmp_path.iterdir()
        os.utime(part, (0, 0))
        remove_leftovers(tmp_path)
        assert not part.exists()

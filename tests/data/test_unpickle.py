"""The restricted unpickler reads arrays of both Pythons, runs nothing, and says what is wrong."""

import builtins
import os
import pickle
import pickletools

import numpy as np
import pytest
from image_files import python2_pickle

from fklit.data import unpickle
from fklit.data.unpickle import UnsafePickleError, load_pickle

CONTENT = {"data": np.arange(12, dtype=np.uint8).reshape(3, 4), "labels": [1, 2, 3], "mean": np.float64(0.5)}


def write(tmp_path, content):
    path = tmp_path / "batch"
    path.write_bytes(content)
    return path


def test_every_protocol_gives_what_was_written(tmp_path):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        found = load_pickle(write(tmp_path, pickle.dumps(CONTENT, protocol=protocol)))
        assert set(found) == set(CONTENT) and found["labels"] == [1, 2, 3] and found["mean"] == 0.5
        assert np.array_equal(found["data"], CONTENT["data"]) and found["data"].dtype == np.uint8


def test_python_2(tmp_path):
    stream = python2_pickle({b"data": CONTENT["data"], b"filenames": [b"\xff.png"]})
    assert "numpy.core.multiarray" in "".join(str(arg) for _, arg, _ in pickletools.genops(stream))
    found = load_pickle(write(tmp_path, stream))
    assert np.array_equal(found["data"], CONTENT["data"]) and found["filenames"] == [b"\xff.png"]


class Payload:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize(
    "payload",
    [
        Payload(os.system, "touch {}"),
        Payload(builtins.eval, "open('{}', 'w')"),
        Payload(builtins.getattr, np.ndarray, "tofile"),
        Payload(np.load, "{}"),
        Payload(np.fromfile, "{}"),
    ],
    ids=["system", "eval", "getattr", "np.load", "np.fromfile"],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_payload_is_refused_and_not_run(tmp_path, payload, protocol):
    target = tmp_path / "target"
    payload.arguments = tuple(a.format(target) if isinstance(a, str) else a for a in payload.arguments)
    path = write(tmp_path, pickle.dumps({**CONTENT, "extra": payload}, protocol=protocol))
    with pytest.raises(
        UnsafePickleError, match=r"arrays only, got \S+ in .*batch, which no batch of images needs; it was not"
    ):
        load_pickle(path)
    assert not target.exists()


def test_a_payload_inside_of_an_array_of_objects_is_refused(tmp_path):
    boxed = np.empty(1, dtype=object)
    boxed[0] = Payload(os.system, f"touch {tmp_path / 'target'}")
    with pytest.raises(UnsafePickleError, match="system"):
        load_pickle(write(tmp_path, pickle.dumps({"data": boxed}, protocol=4)))
    assert not (tmp_path / "target").exists()


def test_what_is_allowed_cannot_be_changed_by_a_pickle(tmp_path):
    """BUILD sets attributes of whatever is on the stack, here of the functions that are allowed."""
    for module, name in unpickle._ALLOWED:
        state = pickle.dumps((None, {"__defaults__": (1,), "__call__": 1}), protocol=2)[2:-1]
        path = write(tmp_path, f"c{module}\n{name}\n".encode() + state + b"b.")
        with pytest.raises(ValueError, match="which is truncated or another"):
            load_pickle(path)


def test_a_persistent_id_is_refused(tmp_path):
    with pytest.raises(UnsafePickleError, match="outside of the file"):
        load_pickle(write(tmp_path, b"Pnowhere\n."))


def test_every_truncation_gives_one_line_that_names_the_file(tmp_path):
    whole = pickle.dumps(CONTENT, protocol=4)
    for length in range(len(whole)):
        with pytest.raises(
            ValueError, match=r"^expected a pickle, got .*batch, which is truncated or another .*; fetch it again\.$"
        ) as caught:
            load_pickle(write(tmp_path, whole[:length]))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello, this is a web page", b"\x80\x04]."], ids=["empty", "text", "list"])
def test_something_else(tmp_path, content):
    with pytest.raises(
        ValueError,
        match=r"expected (a pickle, got .*batch, which is truncated|a dictionary in .*batch, got a list; give)",
    ):
        load_pickle(write(tmp_path, content))

"""Seconds, memory and threads of a run."""

import time

import pytest
import torch

from fklit.sampling import resource_monitor
from fklit.sampling.resource_monitor import ResourceMonitor
from fklit.sampling.threads import check_threads, pinned_threads


def test_seconds_since_the_start_and_the_memory_of_the_device(monkeypatch):
    clock = iter([10.0, 12.5, 14.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(resource_monitor, "peak_memory_bytes", lambda device: 1000 if device.type == "cpu" else 0)
    monitor = ResourceMonitor("cpu")
    assert (monitor.seconds(), monitor.seconds(), monitor.peak_memory_bytes()) == (2.5, 4.0, 1000)


def test_a_gpu_starts_from_no_peak_and_is_waited_for(monkeypatch):
    called = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: called.append(("reset", device.index)))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: called.append(("wait", device.index)))
    ResourceMonitor("cpu").seconds()
    assert called == []
    monitor = ResourceMonitor("cuda:1")
    assert called == [("reset", 1)]
    monitor.seconds()
    assert called == [("reset", 1), ("wait", 1)]


def test_threads_are_counted_from_one():
    assert check_threads(None) is None and check_threads(1) == 1
    with pytest.raises(ValueError, match=r"expected at least 1 thread, got num_threads=0"):
        check_threads(0)


def test_threads_are_pinned_inside_and_as_before_outside():
    torch.set_num_threads(2)
    for number, inside in ((3, 3), (None, 2)):
        with pytest.raises(KeyError), pinned_threads(number):
            assert torch.get_num_threads() == inside
            raise KeyError
        assert torch.get_num_threads() == 2

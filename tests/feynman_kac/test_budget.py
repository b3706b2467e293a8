"""What a run cost: what adds up, what is a maximum, and where memory is read."""

import resource
import sys
from types import SimpleNamespace

import pytest
import torch

from fklit.feynman_kac import Budget
from fklit.feynman_kac.budget import peak_memory_bytes


def test_nothing_spent_is_zero_everywhere() -> None:
    nothing = Budget()
    assert nothing == Budget(denoiser_calls=0, decodes=0, reward_calls=0, seconds=0.0, peak_memory_bytes=0)
    spent = Budget(denoiser_calls=3, decodes=2, reward_calls=1, seconds=0.5, peak_memory_bytes=7)
    assert spent + nothing == nothing + spent == spent


def test_the_larger_peak_counts_whichever_comes_first() -> None:
    small, large = Budget(peak_memory_bytes=3), Budget(peak_memory_bytes=5)
    assert (small + large).peak_memory_bytes == (large + small).peak_memory_bytes == 5


def test_only_budgets_can_be_added_and_none_is_negative() -> None:
    with pytest.raises(TypeError):
        Budget() + 1
    for name in ("denoiser_calls", "decodes", "reward_calls", "seconds", "peak_memory_bytes"):
        with pytest.raises(ValueError, match=f"{name}=-1 is negative"):
            Budget(**{name: -1})


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_the_process_reports_kilobytes_except_on_macos(
    platform: str, unit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=7))
    assert peak_memory_bytes() == peak_memory_bytes(torch.device("cpu")) == 7 * unit


def test_a_gpu_is_asked_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 100 + device.index)
    assert peak_memory_bytes(torch.device("cuda", 1)) == 101


def test_memory_is_unknown_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    assert peak_memory_bytes() == 0

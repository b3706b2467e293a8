"""Shared fixtures: one thread, no network, and nothing global left changed behind."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that reaches for a hub must fail at once
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from collections.abc import Iterator  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread_and_no_leaks() -> Iterator[None]:
    """One thread (faster on busy cores, and byte-equal), the global random state and the grad mode restored."""
    torch.set_num_threads(1)
    state = torch.get_rng_state()
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    yield
    assert torch.is_grad_enabled() == grad, "the test left the gradient mode changed"
    assert torch.get_default_dtype() == dtype, "the test left the default dtype changed"
    torch.set_rng_state(state)

"""TF32 off while a network relaxes: gradients are differences of nearby states, which ten bits of mantissa drown."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute float32 convolutions and matrix products in float32 within the context; restores what was set.

    cuDNN's default on Ampere and later GPUs rounds the inputs of float32 convolutions to TF32. With two phases at
    beta 0.1 the first convolution's gradient is then off by 42 % instead of 0.2 % (measured on an H200 by
    `benchmarks/accelerator.py`).
    """
    cudnn: Any = torch.backends.cudnn  # torch does not annotate its operators
    backends = (cudnn.conv, torch.backends.cuda.matmul)
    before = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = "ieee"
    try:
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision

"""Where a pipeline keeps the networks that predict."""

from typing import Any

from torch import nn

DENOISERS = ("unet", "transformer", "transformer_2", "unconditional_transformer", "decoder")
"""Attributes of pipelines; `transformer_2` takes over at low noise (Wan 2.2), `unconditional_transformer` predicts
without a prompt (Ideogram 4), `decoder` is Stable Cascade's network."""


def denoisers_of(pipeline: Any) -> list[nn.Module]:
    """Return the networks of a pipeline that predict, in the order of `DENOISERS`."""
    found = (getattr(pipeline, name, None) for name in DENOISERS)
    return [network for network in found if isinstance(network, nn.Module)]

"""Calls of `RFD4ProteinaPipeline`: arguments of one group, the start of a run, and the decoding of its end.

The pipeline itself is called for both, up to its first network call and from its last one on: what it makes of masks
and features, and how it decodes, is its own affair.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from fklit.feynman_kac.randomness import group_generators
from fklit.pipelines.microbatch import intercept_call, take_rows
from fklit.pipelines.tokens.arguments import call_arguments

_NEEDED = ("padding_mask", "is_in_context_conditioning", "supports_local_latent", "conditioning_features")


class _SeenError(Exception):
    """The network's first call has shown its arguments."""

    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__()
        self.given = given


def protein_arguments(pipeline: Any, given: Mapping[str, Any], num_groups: int) -> dict[str, Any]:
    """Return all arguments of a call, of all groups together, by name.

    Args:
        pipeline: An `RFD4ProteinaPipeline`.
        given: `pipeline_kwargs` of the run.
        num_groups: B, the rows of every mask.

    Raises:
        ValueError: The call has no such argument, one is missing, fklit gives it, or the rows are not B.
    """
    call = call_arguments(pipeline, given, draws=False)
    name = type(pipeline).__name__
    for key in _NEEDED:
        if not isinstance(call[key], Mapping if key == "conditioning_features" else Tensor):
            found = f"a {type(call[key]).__name__}" if key in given else "none"
            raise ValueError(
                f"expected pipeline_kwargs with {key} for {name}, got {found}; give what prepare_cif of "
                "rfd4-proteina-prep returns."
            )
    if call["inverse_folding"]:
        raise ValueError(
            f"expected inverse_folding=False for {name}, got {call['inverse_folding']!r}, which draws the backbone "
            "anew at every step, without particles; omit it."
        )
    features = {f"conditioning_features[{key!r}]": value for key, value in call["conditioning_features"].items()}
    for key, value in {**call, **features}.items():
        if isinstance(value, Tensor) and (value.ndim == 0 or len(value) != num_groups):
            raise ValueError(
                f"expected {num_groups} rows of {key}, one a prompt, got {tuple(value.shape)}; give a row for each "
                "prompt, and set num_particles for several designs of a row."
            )
    return call


def group_arguments(call: Mapping[str, Any], group: int, num_groups: int) -> dict[str, Any]:
    """Return the arguments of one group: row `group` of every tensor."""
    index = torch.tensor([group])
    return {name: take_rows(value, index, num_groups) for name, value in call.items()}


def particle_generators(base: int, numbers: Sequence[int], device: torch.device) -> list[torch.Generator]:
    """Return one generator a particle, since the pipeline wants one of its own for each row.

    Args:
        base: Seed of the group, see `base_seed`.
        numbers: Slots of the particles.
        device: Where they draw.
    """
    return group_generators(base, numbers, stream="particle", device=device)


def base_seed(source: torch.Generator) -> int:
    """Draw from a group's generator the seed of its particles' generators."""
    return int(torch.randint(2**62, (), generator=source, device=source.device))


def stopped_at_network(
    pipeline: Any, call: Mapping[str, Any], number: int, generators: list[torch.Generator] | None
) -> dict[str, Any]:
    """Return the arguments of the network's first call, of `number` rows; nothing after it is run.

    Args:
        pipeline: The pipeline.
        call: Arguments of one group.
        number: Of particles.
        generators: One a particle, or None for torch's own.
    """

    def show(network: Any, **given: Any) -> Any:
        raise _SeenError(given)

    try:
        with intercept_call(pipeline.transformer, show), _quiet(pipeline):
            pipeline(**call, num_designs_per_prompt=number, generator=generators)
    except _SeenError as seen:
        return seen.given
    raise AssertionError("the pipeline called no network")


def decoded(pipeline: Any, call: Mapping[str, Any], bb_ca: Tensor, local_latents: Tensor, logits: Tensor) -> Any:
    """Return the pipeline's output for states that are given, as if its steps had led to them.

    Args:
        pipeline: The pipeline.
        call: Arguments of one group.
        bb_ca: (n, N, 3).
        local_latents: (n, N, D).
        logits: (n, N, V), of residues, from the last call of the network.
    """

    def answer(network: Any, **given: Any) -> Any:
        still = {name: torch.zeros_like(given[name]) for name in ("bb_ca", "local_latents")}
        return SimpleNamespace(
            backbone=still["bb_ca"],
            local_latents=still["local_latents"],
            sequence_logits=logits,
            insertion_logits=None,
        )

    def stop(pipeline: Any, index: int, time: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        pipeline._interrupt = True  # what diffusers has for it: no further step is taken
        return {"bb_ca": bb_ca, "local_latents": local_latents}

    # The one step's noise is thrown away; it must not come from torch's own generator, nor from a particle's.
    spare = group_generators(0, len(bb_ca), device=bb_ca.device)
    plain = {**call, "partial_t_bb_ca": None, "partial_t_local_latents": None}  # a start would only be encoded again
    with intercept_call(pipeline.transformer, answer), _quiet(pipeline):
        return pipeline(
            **plain, num_designs_per_prompt=len(bb_ca), generator=spare, callback_on_step_end=stop,
        )  # fmt: skip


@contextmanager
def _quiet(pipeline: Any) -> Iterator[None]:
    """Without progress bars, of which a run would show one a decoding."""
    before = dict(getattr(pipeline, "_progress_bar_config", {}))
    pipeline.set_progress_bar_config(**{**before, "disable": True})
    try:
        yield
    finally:
        pipeline.set_progress_bar_config(**before)

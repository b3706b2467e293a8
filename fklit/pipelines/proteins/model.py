"""RFD4-Proteina of diffusers: backbone and local latents under two schedulers, as a model that owns its steps."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fklit.feynman_kac.budget import Budget
from fklit.feynman_kac.randomness import Generators
from fklit.pipelines.microbatch import take_rows
from fklit.pipelines.proteins.calls import (
    base_seed,
    decoded,
    group_arguments,
    particle_generators,
    protein_arguments,
    stopped_at_network,
)
from fklit.pipelines.proteins.design import ProteinDesign
from fklit.pipelines.sampler import DeterministicSamplerError
from fklit.pipelines.tokens.arguments import TokenSettings
from fklit.pipelines.tokens.grouped import GroupedModel
from fklit.pipelines.tokens.rows import GroupState, Rows, at_rows

_GROUPS = "_prepared_coord_group_seq"  # labels of coordinate groups, which the pipeline draws anew before each call


@dataclass(frozen=True)
class ProteinRows(Rows):
    """The particles of one row of the input: what the two schedulers step, side by side.

    Attributes:
        bb_ca: (K, N, 3) in nanometers.
        local_latents: (K, N, D).
        logits: (K, N, V), what the last step's network said of residues; None before the first step.
        ahead: The prediction at this state, if it is at hand: velocities under the names of the states, and `logits`.
    """

    bb_ca: Float[Tensor, "K N 3"]
    local_latents: Float[Tensor, "K N D"]
    logits: Float[Tensor, "K N V"] | None = None
    ahead: dict[str, Tensor] | None = None

    @classmethod
    def forgets(cls) -> frozenset[str]:
        """The prediction."""
        return frozenset({"ahead"})


class ProteinModel(GroupedModel):
    """The model of one run; see `GroupedModel`.

    A group is one call of the pipeline with K designs of one row, each with a generator of its own: noise belongs to
    the slots. Where rewards look on the way, the clean state that the network predicts is decoded.

    Args:
        pipeline: An `RFD4ProteinaPipeline`.
        given: Arguments of its call, of B rows.
        num_groups: B.
        max_batch: Rows of the networks at once; None for K.

    Attributes:
        num_steps: T, the length of the pipeline's `recycle_depths`.

    Raises:
        ValueError: Arguments do not fit.
    """

    modality = "structure"

    def __init__(
        self, pipeline: Any, given: Mapping[str, Any], *, num_groups: int, max_batch: int | None = None
    ) -> None:
        call = protein_arguments(pipeline, given, num_groups)
        super().__init__(
            pipeline, num_groups=num_groups, num_draws=1, max_batch=max_batch, scheduler=pipeline.bb_ca_scheduler
        )
        self.calls = [group_arguments(call, group, num_groups) for group in range(num_groups)]
        self.depths = list(pipeline.config.recycle_depths)
        self.num_steps = len(self.depths)
        self.schedulers = {
            "bb_ca": copy.deepcopy(pipeline.bb_ca_scheduler),
            "local_latents": copy.deepcopy(pipeline.local_latents_scheduler),
        }
        for name, scheduler in self.schedulers.items():
            scheduler.set_timesteps(self.num_steps, device=self.device, start_time=call[f"partial_t_{name}"])
        self._particles: dict[int, tuple[torch.Generator, int, list[torch.Generator]]] = {}
        self._inputs: dict[int, dict[str, Any]] = {}  # of the network's first call, by group
        self._made: tuple[GroupState, list[ProteinDesign]] | None = None  # of the last state that was finished

    def check(self, settings: TokenSettings) -> None:
        """Refuse several particles that cannot part.

        Raises:
            DeterministicSamplerError: No step of either scheduler draws noise.
        """
        draws = any(
            scheduler.config.t_lim_ode_below <= float(time) <= scheduler.config.t_lim_ode
            for scheduler in self.schedulers.values()
            for time in scheduler.timesteps
        )
        if not draws and settings.num_particles > 1 and settings.reward_scale != 0:
            raise DeterministicSamplerError(
                f"expected schedulers of {type(self.pipeline).__name__} of which one draws noise, got none: no time "
                "lies between t_lim_ode_below and t_lim_ode; copies of a particle would stay equal: widen that window."
            )

    def start(self, group: int, num_particles: int) -> ProteinRows:
        """Noise, as the pipeline's call draws it."""
        found = stopped_at_network(self.pipeline, self.calls[group], num_particles, self._slots(group, num_particles))
        self._inputs[group] = found
        return ProteinRows(found["bb_ca"], found["local_latents"])

    def _slots(self, group: int, number: int) -> list[torch.Generator] | None:
        """One generator for each particle of a group, for all sweeps of a run."""
        source = self._noise[group]
        if source is None:
            return None
        known = self._particles.get(group)
        if known is None or known[0] is not source:
            known = (source, base_seed(source), [])
            self._particles[group] = known
        _, base, slots = known
        slots += particle_generators(base, range(len(slots), number), self.device)
        return slots[:number]

    def step(
        self, state: GroupState, t: int, log_weights: Tensor, generator: Generators
    ) -> tuple[GroupState, Float[Tensor, "B K"]]:
        """The t-th step of both schedulers in every group; their importance ratio is 0."""
        groups = []
        with torch.no_grad():
            for group, rows in enumerate(state.groups):
                ahead, slots = self._ahead(group, rows, t), self._slots(group, len(rows.bb_ca))
                moved = {}
                for name, mask in self._masks(group).items():
                    scheduler = self.schedulers[name]
                    scheduler._step_index = t  # it counts its steps, which several groups share
                    moved[name] = scheduler.step(
                        ahead[name], scheduler.timesteps[t], getattr(rows, name), mask, generator=slots
                    ).prev_sample
                groups.append(ProteinRows(**moved, logits=ahead["logits"]))
        return GroupState(tuple(groups), t + 1), torch.zeros(log_weights.shape, dtype=torch.float64)

    def clean_samples(self, state: GroupState, generator: Generators) -> tuple[GroupState, list[ProteinDesign]]:
        """The design that each particle's prediction decodes to."""
        groups, designs = [], []
        with torch.no_grad():
            for group, rows in enumerate(state.groups):
                ahead = self._ahead(group, rows, state.steps)
                clean = {
                    name: (
                        getattr(rows, name) + (1 - self.schedulers[name].timesteps[state.steps]) * ahead[name]
                    ) * mask[..., None]
                    for name, mask in self._masks(group).items()
                }  # fmt: skip
                groups.append(replace(rows, ahead=ahead))
                designs += self._designs(group, ProteinRows(**clean, logits=ahead["logits"]))
        return GroupState(tuple(groups), state.steps), designs

    def finished(self, state: GroupState) -> tuple[list[ProteinDesign], Float[Tensor, "B K N 37 3"]]:
        """B * K designs, and their coordinates in nanometers."""
        if self._made is None or self._made[0] is not state:
            with torch.no_grad():
                made = [design for group, rows in enumerate(state.groups) for design in self._designs(group, rows)]
            self._made = state, made
        designs = self._made[1]
        coords = torch.stack([design.coords_nm for design in designs])
        return designs, coords.reshape(self.num_groups, -1, *coords.shape[1:])

    def _masks(self, group: int) -> dict[str, Tensor]:
        """The tokens that each scheduler moves, (K, N), in the order in which the pipeline steps them."""
        given = self._inputs[group]
        moves = given["padding_mask"] & ~given["conditioning"]["is_in_context_conditioning"]
        return {"bb_ca": moves, "local_latents": moves & given["conditioning"]["supports_local_latent"]}

    def _ahead(self, group: int, rows: ProteinRows, t: int) -> dict[str, Tensor]:
        """The prediction before step t."""
        if rows.ahead is not None:
            return rows.ahead
        from diffusers.models.transformers.transformer_rfd4_proteina import prepare_coord_group_seq

        number, transformer = len(rows.bb_ca), self.pipeline.transformer
        given = dict(self._inputs[group])
        if t > 0 and "coord_group_seq" in transformer.config.feats_seq:
            features = {name: value for name, value in given["conditioning"].items() if name != _GROUPS}
            labels = prepare_coord_group_seq(features, self._slots(group, number))
            given["conditioning"] = features if labels is None else {**features, _GROUPS: labels}
        given |= {"bb_ca": rows.bb_ca, "local_latents": rows.local_latents, "recycle_depth": self.depths[t]}
        given |= {f"{name}_time": scheduler.timesteps[t].expand(number) for name, scheduler in self.schedulers.items()}
        self._spent = self._spent + Budget(denoiser_calls=number)
        parts = []
        for index, used in [(None, number)] if self.max_batch is None else self.chunks(number):
            found = transformer(**(given if index is None else take_rows(given, index, number)))
            part = {"bb_ca": found.backbone.float(), "local_latents": found.local_latents.float()}
            part["logits"] = found.sequence_logits
            parts.append({name: value[:used] for name, value in part.items()})
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _designs(self, group: int, rows: ProteinRows) -> list[ProteinDesign]:
        """States decoded by the pipeline."""
        number, found = len(rows.bb_ca), []
        self._spent = self._spent + Budget(decodes=number)
        for index, used in [(None, number)] if self.max_batch is None else self.chunks(number):
            states = [at_rows(value, index) for value in (rows.bb_ca, rows.local_latents, rows.logits)]
            output = decoded(self.pipeline, self.calls[group], *states)
            names = ("coords_nm", "residue_type", "emit_mask", "atom_mask", "bb_ca")
            found += [ProteinDesign(**{name: getattr(output, name)[row] for name in names}) for row in range(used)]
        return found

"""Scores of clean samples that are drawn from the particles of a run, counted and checked."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from fklit.feynman_kac.randomness import group_generators, normals
from fklit.feynman_kac.soft_mean import soft_mean
from fklit.pipelines.denoisers import denoisers_of
from fklit.pipelines.finite import check_finite
from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.pipelines.level_grid import GridLevel, levels_ahead
from fklit.pipelines.level_move import move
from fklit.pipelines.network_replay import NetworkReplay
from fklit.pipelines.step_call import StepCall
from fklit.pipelines.transition import Transition, draw
from fklit.sampling.look_ahead import LookAhead
from fklit.sampling.prediction_scores import PredictionScores
from fklit.sampling.settings import ParticleSettings

_OTHERWISE = "set look_ahead=None"


class LookAheadScores:
    """Draws clean samples of B * K particles, and scores them.

    Args:
        settings: how far to look.
        pipeline: the pipeline that runs.
        predictions: decodes and scores denoised latents.
        prompt_indices: B indices of the prompts, from which with the seed the noise follows.
        particles: how the particles are carried.
        reward_scale: of the run.

    Attributes:
        settings: how far to look.
        evaluations: denoiser evaluations at each score so far, by rows.
        draws: draws of each particle at each score so far.
    """

    def __init__(
        self,
        settings: LookAhead,
        pipeline: Any,
        *,
        predictions: PredictionScores,
        prompt_indices: Sequence[int],
        particles: ParticleSettings,
        reward_scale: float,
    ) -> None:
        self.settings = settings
        self.evaluations: list[int] = []
        self.draws: list[int] = []
        self._pipeline = pipeline
        self._predictions = predictions
        self._max_batch, self._on_nan = particles.max_batch, particles.on_nan
        self._num_particles = particles.num_particles
        self._reward_scale = reward_scale
        # A stream of its own, one for each prompt: neither the other draws of the run nor its neighbors change.
        self._generators = group_generators(particles.seed, prompt_indices, stream="look-ahead")
        self._timed = False  # whether a step has told what the network's timestep is

    def __call__(
        self, latents: Tensor, groups: Sequence[int] | None, call: StepCall, *, where: str
    ) -> tuple[Float64[Tensor, "G K"], Tensor]:
        """Return the rewards of the particles of some prompts, and the first draw of each, decoded (G * K, ...).

        Args:
            latents: denoised predictions of all prompts (B * K, ...).
            groups: the G prompts that are scored; None for all.
            call: the step, with the denoiser's calls.
            where: names the moment in messages.

        Raises:
            UnsupportedPipelineError: the denoiser cannot be asked at another noise level.
        """
        chosen = list(range(len(self._generators))) if groups is None else list(groups)
        replay: NetworkReplay | None = None
        levels: list[GridLevel] = []
        if self.settings.num_steps > 1:
            levels = levels_ahead(call, self.settings.num_steps, otherwise=_OTHERWISE)
        if len(levels) > 1:
            replay = self._replay(call, levels[0])
        draws = 1 if replay is None else self.settings.num_samples  # without levels ahead all would be equal
        found, first = [], None
        for _ in range(draws):
            clean = latents
            if replay is not None:
                rows = self._predictions.rows(chosen)
                drawn = self._rollout(latents, rows, levels, replay, chosen, where)
                clean = latents.index_copy(0, rows.to(latents.device), drawn.to(latents))
            rewards, samples = self._predictions(clean, groups, where=where)
            found.append(rewards)
            first = samples if first is None else first
        assert first is not None
        self.evaluations.append(0 if replay is None else replay.evaluations)
        self.draws.append(draws)
        return soft_mean(torch.stack(found, dim=2), self._reward_scale), first

    def skip(self) -> None:
        """Count a score of nobody."""
        self.evaluations.append(0)
        self.draws.append(0)

    def _replay(self, call: StepCall, level: GridLevel) -> NetworkReplay:
        """The denoiser of the step, to be asked at other levels."""
        called = {id(item.network) for item in call.network_calls}
        idle = next((part for part in denoisers_of(self._pipeline) if id(part) not in called), None)
        if idle is not None or getattr(self._pipeline, "do_pag_adaptive_scaling", False):
            reason = (
                "guidance that changes with the timestep (pag_adaptive_scale)"
                if idle is None
                else f"a {type(idle).__name__} that is not called at this step, and may take over at other noise levels"
            )
            raise UnsupportedPipelineError(
                f"look_ahead expected one denoiser for all noise levels, got {type(self._pipeline).__name__} with "
                f"{reason}; {_OTHERWISE}."
            )
        replay = NetworkReplay(
            call,
            max_batch=self._max_batch,
            otherwise=f"use plain guidance and a denoiser of timesteps, or {_OTHERWISE}",
        )
        mirrored = any([time.mirrored for time in replay.find_times(level)])
        if mirrored and not self._timed:
            raise UnsupportedPipelineError(
                f"look_ahead expected a first score away from timestep {float(level.timestep):g}, half of those of "
                "training, where a network that counts time backwards looks the same, got a score there; score a step "
                "before as well."
            )
        self._timed = self._timed or not mirrored
        return replay

    def _rollout(
        self,
        latents: Tensor,
        rows: Tensor,
        levels: Sequence[GridLevel],
        replay: NetworkReplay,
        groups: Sequence[int],
        where: str,
    ) -> Tensor:
        """One clean sample of each of some rows, (n, C, ...) float32."""
        here = rows.to(latents.device)
        sample, x0 = replay.sample[here].float(), latents[here].float()
        for now, after in pairwise(levels):
            law = move(sample, x0, now=(now.scale, now.sigma), after=(after.scale, after.sigma), eta=self.settings.eta)
            sample = self._drawn(law, groups)
            output = replay.predict(sample, rows, at=after)
            if self._on_nan == "error":
                name = lambda row: self._predictions.name_of_row(int(rows[row]))  # noqa: E731
                moment = f"looking ahead {where} to timestep {float(after.timestep):g}"
                check_finite(output, "denoiser", replay.network, where=moment, name=name)
            x0 = after.denoised(output, sample)
        return x0

    def _drawn(self, law: Transition, groups: Sequence[int]) -> Tensor:
        """Next samples of the particles of some prompts, each prompt's from its own generator."""
        if law.std == 0:
            return law.mean
        shape = (len(groups), self._num_particles, *law.mean.shape[1:])
        noise = normals([self._generators[b] for b in groups], shape, device=law.mean.device)
        return draw(law, noise.flatten(0, 1))

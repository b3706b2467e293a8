"""Ancestral sampling of masked diffusion as a model that owns its steps, for `fklit.feynman_kac.run`."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from fklit.feynman_kac import Budget, Generators
from fklit.feynman_kac.categorical import draw
from fklit.feynman_kac.randomness import uniforms
from fklit.text.denoising import Denoising, Predictions
from fklit.text.noise_schedule import NoiseSchedule
from fklit.text.proposals import TokenProposal
from fklit.text.twisted import StepProposal
from fklit.text.unmasking import places_to_unmask, transition_log_probs


@dataclass(frozen=True)
class TextState:
    """Particles of masked diffusion.

    Attributes:
        tokens: (B, K, L) int64.
        predictions: What is known of the masked positions; None before anything was asked.
        unmasked_at: (B, K, L) int64, the step that unmasked each position, -1 for those that are masked or were given;
            None if nobody counts.
    """

    tokens: Int64[Tensor, "B K L"]
    predictions: Predictions | None = None
    unmasked_at: Int64[Tensor, "B K L"] | None = None

    def remembered(self) -> Self:
        """The state without predictions, which can be asked for again."""
        return replace(self, predictions=None)

    def joined(self, other: Self) -> Self:
        """These particles followed by the other's, group by group."""
        when = None
        if self.unmasked_at is not None and other.unmasked_at is not None:
            when = torch.cat([self.unmasked_at, other.unmasked_at], dim=1)
        known = None
        if self.predictions is not None or other.predictions is not None:
            mine = self.predictions or Predictions.nothing(self.tokens)
            known = mine.joined(other.predictions or Predictions.nothing(other.tokens))
        return replace(self, tokens=torch.cat([self.tokens, other.tokens], dim=1), predictions=known, unmasked_at=when)


class AncestralModel:
    """The reverse process of MDLM (Sahoo et al. 2024, section 3.3) over T steps from t = 1 to 0.

    In a step each masked position is unmasked with probability `(alpha_s - alpha_t) / (1 - alpha_t)`, and only then
    asked for: a particle of which nothing is unmasked costs no denoiser call. Its log potential is the importance ratio
    of the proposal, 0 for the model's own law; rewards are added by what steers it.

    Args:
        denoising: Predicts.
        start: (B, L) int64, the tokens at the start: masks, but for those that are given (a prompt), which stay.
        num_steps: T.
        schedule: Of the noise.
        proposal: Law of the tokens, or of places and tokens of a step; None for the model's own.

    Attributes:
        num_steps: T.
        budget: Denoiser calls since `initial`.

    Raises:
        ValueError: A number is out of its range.
    """

    def __init__(
        self,
        denoising: Denoising,
        start: Int64[Tensor, "B L"],
        *,
        num_steps: int,
        schedule: NoiseSchedule,
        proposal: TokenProposal | StepProposal | None = None,
    ) -> None:
        if num_steps < 1:
            raise ValueError(f"expected num_steps of at least 1, got {num_steps}; give an integer.")
        self.denoising, self.start, self.proposal = denoising, start, proposal
        self.num_steps, self.schedule = num_steps, schedule
        times = [1 - step / num_steps for step in range(num_steps)] + [0.0]
        self.unmask = [schedule.unmask_probability(times[t], times[t + 1]) for t in range(num_steps)]
        self._before = denoising.calls

    @property
    def budget(self) -> Budget:
        """What was spent since `initial`."""
        return Budget(denoiser_calls=self.denoising.calls - self._before)

    def initial(self, num_groups: int, num_particles: int, generator: Generators) -> TextState:
        """The start of each group, K times.

        Raises:
            ValueError: There are more or fewer groups than starts.
        """
        if num_groups != len(self.start):
            raise ValueError(f"expected {len(self.start)} groups, one a prompt, got {num_groups}; give as many.")
        self._before = self.denoising.calls
        tokens = self.start[:, None].repeat(1, num_particles, 1)
        return TextState(tokens, unmasked_at=torch.full_like(tokens, -1))

    def step(
        self, state: TextState, t: int, log_weights: Tensor, generator: Generators
    ) -> tuple[TextState, Float64[Tensor, "B K"]]:
        """Unmask from the t-th time to the next; return the importance ratio."""
        if isinstance(self.proposal, StepProposal):
            return self._whole_step(self.proposal, state, t, generator)
        tokens, mask = state.tokens, self.denoising.mask
        points = uniforms(generator, tokens.shape, device=tokens.device)
        at, inner = places_to_unmask(tokens, points, mask=mask, unmask=self.unmask[t])
        ratio = torch.zeros(tokens.shape[:2], dtype=torch.float64, device=tokens.device)
        if not bool(at.any()):
            return state, ratio
        if self.proposal is not None:
            state = self.predict(state)  # of every position, for the tilt
        base = self._base(state, at)
        law = base
        if self.proposal is not None:
            law = self.proposal.log_probs(base, tokens, at, lambda: self.log_probs(state))
        values, log_q = (drawn.squeeze(1) for drawn in draw(law, inner[at][:, None]))
        if self.proposal is not None:
            log_p = base.gather(1, values[:, None]).squeeze(1)
            ratio = torch.zeros(tokens.shape, dtype=torch.float64, device=tokens.device)
            ratio = ratio.masked_scatter(at, log_p - log_q).sum(dim=2)
        kept = None if state.predictions is None else state.predictions.kept(~at.any(dim=2))
        when = None if state.unmasked_at is None else state.unmasked_at.masked_fill(at, t)
        return TextState(tokens.masked_scatter(at, values), kept, when), ratio

    def _whole_step(
        self, proposal: StepProposal, state: TextState, t: int, generator: Generators
    ) -> tuple[TextState, Float64[Tensor, "B K"]]:
        """A step whose places and tokens are drawn together."""
        tokens, mask = state.tokens, self.denoising.mask
        if not bool((tokens == mask).any()):
            return state, torch.zeros(tokens.shape[:2], dtype=torch.float64, device=tokens.device)
        state = self.predict(state)
        transition = transition_log_probs(self.log_probs(state), tokens, mask=mask, unmask=self.unmask[t])
        drawn, log_q = proposal.draw(tokens, transition, t, generator)
        log_p = transition.gather(3, drawn[..., None]).squeeze(3).sum(dim=2)
        changed = drawn != tokens
        when = None if state.unmasked_at is None else state.unmasked_at.masked_fill(changed, t)
        assert state.predictions is not None
        return TextState(drawn, state.predictions.kept(~changed.any(dim=2)), when), log_p - log_q

    def predict(self, state: TextState) -> TextState:
        """The state with predictions at all masked positions; those at hand are used again."""
        masked = state.tokens == self.denoising.mask
        known = state.predictions
        if known is None:
            return replace(state, predictions=self.denoising.predict(state.tokens))
        missing = (masked & (known.place < 0)).any(dim=2)
        if not bool(missing.any()):
            return state
        flat, at = state.tokens.flatten(0, 1), (masked & missing[..., None]).flatten(0, 1)
        found, places = self.denoising.ask(flat, at)
        # Only what is still in use is kept of the old ones.
        old = known.place >= 0
        used, which = torch.unique(known.place[old], return_inverse=True)
        place = torch.where(places >= 0, places + len(used), -1).view(masked.shape)
        place[old] = which
        return replace(state, predictions=Predictions(torch.cat([known.log_probs[used], found]), place))

    def log_probs(self, state: TextState) -> Float64[Tensor, "B K L V"]:
        """Log probabilities of the clean tokens at all positions: predicted, or 0 at the token that is there.

        Args:
            state: With predictions (see `predict`).
        """
        assert state.predictions is not None
        place, found = state.predictions.place, state.predictions.log_probs
        known = torch.full((*state.tokens.shape, found.shape[1]), -torch.inf, dtype=torch.float64, device=found.device)
        known = known.scatter(3, state.tokens.clamp(max=found.shape[1] - 1)[..., None], 0.0)
        known[place >= 0] = found[place[place >= 0]]
        return known

    def draw_clean(self, state: TextState, number: int, generator: Generators) -> Int64[Tensor, "B K N L"]:
        """Clean texts drawn from the predictions, each position on its own: `x_0 ~ prod_i p(x_i | x_t)`.

        Args:
            state: With predictions (see `predict`).
            number: N, draws of each particle.
            generator: As given to `run`.
        """
        assert state.predictions is not None
        groups, particles, length = state.tokens.shape
        points = uniforms(generator, (groups, particles, length, number), device=state.tokens.device)
        texts = state.tokens[..., None].repeat(1, 1, 1, number)
        masked = state.tokens == self.denoising.mask
        if bool(masked.any()):
            rows = state.predictions.place[masked]
            texts[masked], _ = draw(state.predictions.log_probs[rows], points[masked])
        return texts.transpose(2, 3)

    def _base(self, state: TextState, at: Tensor) -> Float64[Tensor, "m V"]:
        """Log probabilities of the model at the positions that are unmasked."""
        known = state.predictions
        if known is None:
            return self.denoising.log_probs(state.tokens.flatten(0, 1), at.flatten(0, 1))
        place = known.place[at]
        if bool((place >= 0).all()):
            return known.log_probs[place]
        found = known.log_probs[place.clamp(min=0)] if len(known.log_probs) else None
        new = at & (known.place < 0)
        asked = self.denoising.log_probs(state.tokens.flatten(0, 1), new.flatten(0, 1))
        if found is None:
            return asked
        found[place < 0] = asked
        return found

"""aMUSEd of diffusers: pictures of masked tokens, unmasked by confidence, as a model that owns its steps."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from fklit.feynman_kac.budget import Budget
from fklit.feynman_kac.categorical import draw
from fklit.feynman_kac.randomness import Generators, uniforms
from fklit.pipelines.microbatch import intercept_call
from fklit.pipelines.tokens.arguments import call_arguments
from fklit.pipelines.tokens.grouped import GroupedModel
from fklit.pipelines.tokens.rows import GroupState, Rows, at_rows


@dataclass(frozen=True)
class AmusedRows(Rows):
    """The particles of one prompt.

    Attributes:
        tokens: (K, h, w), masked where nothing is decided.
        logits: (K, V, h, w), predictions, guidance included, if they are at hand.
    """

    tokens: Int64[Tensor, "K h w"]
    logits: Tensor | None = None

    @classmethod
    def forgets(cls) -> frozenset[str]:
        """The predictions."""
        return frozenset({"logits"})


class _SeenError(Exception):
    """The network's first call has shown its arguments."""

    def __init__(self, tokens: Tensor, given: dict[str, Any]) -> None:
        super().__init__()
        self.tokens, self.given = tokens, given


class AmusedModel(GroupedModel):
    """The model of one run; see `GroupedModel`.

    Args:
        pipeline: An `AmusedPipeline`.
        prompts: B prompts.
        given: Arguments of its call, and `num_draws` (1 by default: a draw is decoded).
        max_batch: Rows of the networks at once; None for K.

    Attributes:
        num_steps: T.

    Raises:
        ValueError: Arguments do not fit.
    """

    modality = "image"

    def __init__(
        self,
        pipeline: Any,
        prompts: Sequence[str],
        given: Mapping[str, Any] | None = None,
        *,
        max_batch: int | None = None,
    ) -> None:
        call = call_arguments(pipeline, {"num_draws": 1, **(given or {})})
        super().__init__(pipeline, num_groups=len(prompts), num_draws=int(call.pop("num_draws")), max_batch=max_batch)
        steps = call["num_inference_steps"]
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"expected num_inference_steps as an integer of at least 1, got {steps!r}; give one.")
        negative = call["negative_prompt"]
        if not (negative is None or isinstance(negative, str)):
            raise ValueError(f"expected negative_prompt as one text for all prompts, got {negative!r}; give a string.")
        self.call, self.prompts, self.num_steps = call, list(prompts), steps
        self.guides = call["guidance_scale"] > 1
        self.scheduler = copy.deepcopy(pipeline.scheduler)
        self.scheduler.set_timesteps(steps, call["temperature"], self.device)
        self.mask = int(self.scheduler.config.mask_token_id)
        self._made: tuple[GroupState, Tensor] | None = None  # the pictures of the last state that was finished
        self._known: dict[tuple[int, int], tuple[Tensor, dict[str, Any]]] = {}

    def _first_call(self, group: int, number: int) -> tuple[Tensor, dict[str, Any]]:
        """The tokens that the pipeline's call begins with, and what its network gets beside tokens.

        The pipeline itself is called, up to the first call of its network: what it makes of prompts is its own affair.
        """
        if (group, number) not in self._known:

            def show(call: Any, tokens: Tensor, **given: Any) -> Any:
                raise _SeenError(tokens, given)

            negative = self.call[
                "negative_prompt"
            ]  # one a row: the pipeline spreads it over prompts only if it is None
            call = self.call | {"negative_prompt": None if negative is None else [negative] * number}
            try:
                with intercept_call(self.pipeline.transformer, show), torch.no_grad():
                    self.pipeline(prompt=[self.prompts[group]] * number, **call)
            except _SeenError as seen:
                self._known[group, number] = seen.tokens[:number], seen.given
        return self._known[group, number]

    def start(self, group: int, num_particles: int) -> AmusedRows:
        """Masks."""
        return AmusedRows(self._first_call(group, num_particles)[0].clone())

    def step(
        self, state: GroupState, t: int, log_weights: Tensor, generator: Generators
    ) -> tuple[GroupState, Float[Tensor, "B K"]]:
        """The t-th step of every group; their importance ratio is 0."""
        groups = []
        with torch.no_grad():
            for group, rows in enumerate(state.groups):
                output = self.scheduler.step(
                    model_output=self._logits(group, rows), timestep=self.scheduler.timesteps[t], sample=rows.tokens,
                    generator=self._noise[group],
                )  # fmt: skip
                groups.append(AmusedRows(output.prev_sample))
        return GroupState(tuple(groups), t + 1), torch.zeros(log_weights.shape, dtype=torch.float64)

    def _logits(self, group: int, rows: AmusedRows) -> Tensor:
        if rows.logits is not None:
            return rows.logits

        def ask(index: Tensor | None, count: int) -> Tensor:
            tokens, given = at_rows(rows.tokens, index), self._first_call(group, count)[1]
            output: Tensor = self.pipeline.transformer(torch.cat([tokens] * 2) if self.guides else tokens, **given)
            if not self.guides:
                return output
            unconditional, conditional = output.chunk(2)
            guided: Tensor = unconditional + self.call["guidance_scale"] * (conditional - unconditional)
            return guided

        number = len(rows.tokens)
        return self.in_chunks(ask, number, Budget(denoiser_calls=number * (2 if self.guides else 1)))

    def clean_samples(self, state: GroupState, generator: Generators) -> tuple[GroupState, Tensor]:
        """N pictures of each particle: its masks drawn from the predictions, each by itself, and decoded."""
        groups, pictures = [], []
        with torch.no_grad():
            for group, rows in enumerate(state.groups):
                drawn = rows.tokens[..., None].repeat(1, 1, 1, self.num_draws)
                open_ = rows.tokens == self.mask
                if bool(open_.any()):
                    logits = self._logits(group, rows)
                    rows = replace(rows, logits=logits)
                    law = torch.log_softmax(logits.permute(0, 2, 3, 1)[open_].double(), dim=-1)
                    points = uniforms(self._clean[group], (len(law), self.num_draws), device=self.device)
                    drawn[open_], _ = draw(law, points)
                groups.append(rows)
                pictures.append(self._decoded(group, drawn.permute(0, 3, 1, 2).flatten(0, 1)))
        return GroupState(tuple(groups), state.steps), torch.cat(pictures)

    def _decoded(self, group: int, tokens: Tensor) -> Float[Tensor, "n 3 H W"]:
        """Pictures in [0, 1], by the pipeline's own call without a step."""

        def ask(index: Tensor | None, count: int) -> Tensor:
            given = self._first_call(group, count)[1]
            half = slice(-count, None)  # of guidance the conditional one; a decoder reads neither
            output = self.pipeline(
                latents=at_rows(tokens, index), num_inference_steps=0, guidance_scale=0.0, output_type="pt",
                prompt_embeds=given["pooled_text_emb"][half],
                encoder_hidden_states=given["encoder_hidden_states"][half],
                height=self.call["height"], width=self.call["width"],
            )  # fmt: skip
            found: Tensor = output.images
            return found.float()

        return self.in_chunks(ask, len(tokens), Budget(decodes=len(tokens)))

    def finished(self, state: GroupState) -> tuple[Tensor, Tensor]:
        """Pictures (B * K, 3, H, W), and again as (B, K, 3, H, W)."""
        if self._made is None or self._made[0] is not state:
            with torch.no_grad():
                pictures = [self._decoded(group, rows.tokens) for group, rows in enumerate(state.groups)]
            self._made = state, torch.stack(pictures)
        return self._made[1].flatten(0, 1), self._made[1]

"""DiffusionGemma of diffusers: canvases of random tokens, denoised one by one, as a model that owns its steps."""

import copy
import functools
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from fklit.feynman_kac.budget import Budget
from fklit.pipelines.reindex import is_per_sample
from fklit.pipelines.tokens.arguments import call_arguments
from fklit.pipelines.tokens.block_model import BlockTextModel, Undecided
from fklit.pipelines.tokens.drawn import drawn_law, probed, step_arguments
from fklit.pipelines.tokens.renoising import renoising_probs
from fklit.pipelines.tokens.rows import GroupState, Rows, at_rows, joined


@dataclass(frozen=True)
class GemmaRows(Rows):
    """The particles of one prompt.

    Attributes:
        tokens: (K, l), prompt and canvases that were begun.
        finished: (K,), whether a complete canvas has an end token.
        frozen: (K,), whether the predictions of the current canvas are stable and confident.
        argmax: (K, C), the likeliest tokens of the canvas at the last step; those of a frozen one stay.
        history: (K, H, C), those of the H last steps.
        written_at: (K, l), the step that last changed each token, -1 for the prompt.
        cache: Keys and values of all tokens before the current canvas.
        conditioning: (K, C, V), the logits that the next prediction is conditioned on; None at a canvas's first step.
        scheduler: What the scheduler keeps of each particle, by name, (K, C).
        logits: (K, C, V), predictions of the canvas, if they are at hand.
    """

    tokens: Int64[Tensor, "K l"]
    finished: Bool[Tensor, " K"]
    frozen: Bool[Tensor, " K"]
    argmax: Int64[Tensor, "K C"]
    history: Int64[Tensor, "K H C"]
    written_at: Int64[Tensor, "K l"]
    cache: Any = None
    conditioning: Tensor | None = None
    scheduler: dict[str, Tensor] | None = None
    logits: Tensor | None = None

    @classmethod
    def forgets(cls) -> frozenset[str]:
        """The predictions."""
        return frozenset({"logits"})


class DiffusionGemmaModel(BlockTextModel):
    """The model of one run; see `BlockTextModel`.

    The canvas is random tokens at first, and what a step does not keep is random again, so clones part even at
    temperature 0.

    Args:
        pipeline: A `DiffusionGemmaPipeline`, with any of its schedulers.
        prompts: B prompts.
        given: Arguments of its call, and `num_draws`.
        max_batch: Rows of the networks at once; None for K.

    Raises:
        ValueError: Arguments do not fit.
    """

    def __init__(
        self,
        pipeline: Any,
        prompts: Sequence[str],
        given: Mapping[str, Any] | None = None,
        *,
        max_batch: int | None = None,
    ) -> None:
        call = call_arguments(pipeline, given)
        pipeline.check_inputs(
            prompt=prompts[0], messages=None, gen_length=call["gen_length"], output_type="text",
            num_inference_steps=call["num_inference_steps"], callback_on_step_end_tensor_inputs=None,
        )  # fmt: skip
        device = torch.device(pipeline._execution_device)
        eos = pipeline.eos_token_id if call["eos_token_id"] is None else call["eos_token_id"]
        self.prompts = []
        for prompt in prompts:
            ids, attention, _ = pipeline._prepare_inputs(
                prompt=prompt, messages=None, image=None, add_generation_prompt=call["add_generation_prompt"]
            )
            if not ids.shape[1]:
                raise ValueError(f"expected a prompt of at least one token, got {prompt!r}; write one.")
            self.prompts.append((ids.to(device), attention.to(device)))
        self.canvas = int(pipeline.model.config.canvas_length)
        self.canvases = -(-int(call["gen_length"]) // self.canvas)
        # Sweeps of a corrector are taken out of the steps, as the pipeline does.
        steps, self.sweeps = int(call["num_inference_steps"]), getattr(pipeline.scheduler.config, "corrector_steps", 0)
        self.corrected = (steps - 1) // (1 + self.sweeps) if self.sweeps else 0
        steps -= self.corrected * self.sweeps
        super().__init__(
            pipeline, call, tokenizer=getattr(pipeline.processor, "tokenizer", pipeline.processor), eos=eos,
            num_groups=len(prompts), num_blocks=self.canvases, steps_per_block=steps, max_batch=max_batch,
        )  # fmt: skip
        self.scheduler = copy.deepcopy(pipeline.scheduler)
        takes_length = "block_length" in inspect.signature(self.scheduler.set_timesteps).parameters
        length = {"block_length": self.canvas} if takes_length else {}
        self.scheduler.set_timesteps(steps, device=device, **length)
        self.text_config = pipeline.model.config.get_text_config(decoder=True)

    @property
    def decoder(self) -> Any:
        """The processor."""
        return self.pipeline.processor

    def start(self, group: int, num_particles: int) -> GemmaRows:
        """The prompt, and the first canvas."""
        tokens = self.prompts[group][0].expand(num_particles, -1)
        no = torch.zeros(num_particles, dtype=torch.bool, device=self.device)
        nothing = torch.full((num_particles, self.canvas), -1, device=self.device)
        history = nothing[:, None].expand(-1, max(self.call["stability_threshold"], 1), -1)
        rows = GemmaRows(tokens, no, no, nothing, history, torch.full_like(tokens, -1))
        with torch.no_grad():
            return self._begun(group, rows, 0)

    def _begun(self, group: int, rows: GemmaRows, block: int) -> GemmaRows:
        """The rows with all that is written in their cache, and a canvas of random tokens."""
        shape, generator = (len(rows.tokens), self.canvas), self._noise[group]
        cache = self._encoded(group, rows)
        canvas = torch.randint(0, self.text_config.vocab_size, shape, device=self.device, generator=generator)
        when = torch.nn.functional.pad(rows.written_at, (0, self.canvas), value=block * self.steps_per_block)
        return GemmaRows(
            tokens=torch.cat([rows.tokens, canvas], dim=1), finished=rows.finished,
            frozen=torch.zeros_like(rows.frozen), argmax=canvas, history=torch.full_like(rows.history, -1),
            written_at=when, cache=cache,
        )  # fmt: skip

    def _encoded(self, group: int, rows: GemmaRows) -> Any:
        """The cache of all tokens: the prompt's, or the last cache with the last canvas."""
        from transformers import DynamicCache

        number, length = rows.tokens.shape
        before = 0 if rows.cache is None else rows.cache.get_seq_length()
        positions = torch.arange(before, length, device=self.device)[None]

        def encode(index: Tensor | None, count: int) -> Any:
            cache = DynamicCache(config=self.text_config) if rows.cache is None else at_rows(rows.cache, index)
            self.pipeline.model.model.encoder(
                input_ids=at_rows(rows.tokens, index)[:, before:], attention_mask=self._attention(group, length, count),
                past_key_values=cache, position_ids=positions,
            )  # fmt: skip
            return cache

        if self.max_batch is None:
            return encode(None, number)
        parts = []
        for index, used in self.chunks(number):
            parts.append(at_rows(encode(index, len(index)), torch.arange(used, device=self.device)))
        return functools.reduce(joined, parts)

    def _attention(self, group: int, length: int, count: int) -> Tensor:
        """1 for what the network sees of `length` tokens, (count, length)."""
        prompt = self.prompts[group][1]
        return torch.nn.functional.pad(prompt, (0, length - prompt.shape[1]), value=1).expand(count, -1)

    def _ended(self, rows: GemmaRows) -> bool:
        return bool(self.call["eos_early_stop"]) and self.eos is not None and bool(rows.finished.all())

    def advance(
        self, group: int, rows: GemmaRows, block: int, within: int, generator: torch.Generator | None
    ) -> GemmaRows:
        """A step of the scheduler on the canvas, and its corrector's; frozen particles stay."""
        if within == 0 and block:
            if self.eos is not None:
                rows = replace(rows, finished=rows.finished | (self._canvas(rows) == self.eos).any(dim=1))
            rows = rows if self._ended(rows) else self._begun(group, rows, block)
        if self._ended(rows) or bool(rows.frozen.all()):
            return rows
        logits, canvas, scheduler = (
            self._logits(group, rows, self._canvas(rows)),
            self._canvas(rows),
            self._with(rows.scheduler),
        )
        output = scheduler.step(
            model_output=logits, timestep=within, sample=canvas, return_dict=True,
            **step_arguments(scheduler, {**self._arguments(), "generator": generator}),
        )  # fmt: skip
        new, shaped = output.prev_sample, output.pred_logits
        kept = {name: value for name, value in vars(scheduler).items() if is_per_sample(value, canvas)}
        rows = replace(rows, conditioning=shaped, scheduler=kept, logits=None)
        for _ in range(self.sweeps if within < self.corrected else 0):
            again = self._logits(group, rows, new)
            new = scheduler.step_correct(
                model_output=again, timestep=within, sample=new, generator=generator
            ).prev_sample
        if self.call["confidence_threshold"] is not None:
            rows = self._frozen(rows, shaped)
            new = torch.where(rows.frozen[:, None], rows.argmax, new)
        when = rows.written_at.clone()
        when[:, -self.canvas :].masked_fill_(new != canvas, block * self.steps_per_block + within)
        return replace(rows, tokens=torch.cat([rows.tokens[:, : -self.canvas], new], dim=1), written_at=when)

    def _frozen(self, rows: GemmaRows, shaped: Tensor) -> GemmaRows:
        """Freeze what has been the likeliest long enough, with little entropy; it is then the canvas."""
        likeliest = torch.where(rows.frozen[:, None], rows.argmax, shaped.argmax(dim=-1))
        stable = (rows.history == likeliest[:, None]).all(dim=-1).all(dim=1)
        law = torch.distributions.Categorical(logits=shaped.float())
        entropy = law.entropy().mean(-1)  # type: ignore[no-untyped-call]
        frozen = rows.frozen | (stable & (entropy < self.call["confidence_threshold"]))
        return replace(
            rows, frozen=frozen, argmax=likeliest, history=torch.cat([rows.history[:, 1:], likeliest[:, None]], dim=1)
        )

    def _canvas(self, rows: GemmaRows) -> Int64[Tensor, "K C"]:
        return rows.tokens[:, -self.canvas :]

    def _arguments(self) -> dict[str, Any]:
        """Of the scheduler's step: its own config says the rest."""
        return {"mask_token_id": None, "temperature": self.call["temperature"]}

    def _with(self, kept: dict[str, Tensor] | None) -> Any:
        """A scheduler that knows what it kept of particles."""
        scheduler = copy.deepcopy(self.scheduler)
        for name, value in (kept or {}).items():
            setattr(scheduler, name, value)
        return scheduler

    def _logits(self, group: int, rows: GemmaRows, canvas: Tensor) -> Tensor:
        """Predictions of a canvas, given the cache and the conditioning of its particles."""
        if rows.logits is not None:
            return rows.logits
        network, length = self.pipeline.model, rows.tokens.shape[1]
        positions = torch.arange(length - self.canvas, length, device=self.device)[None]

        def ask(index: Tensor | None, count: int) -> Tensor:
            cache = rows.cache if index is None else at_rows(rows.cache, index)
            masks = network.model.decoder.create_diffusion_decoder_attention_mask(
                config=network.config, inputs_embeds=torch.empty((count, self.canvas, 0), device=self.device),
                past_key_values=cache, decoder_attention_mask=self._attention(group, length, count).bool(),
            )  # fmt: skip
            found: Tensor = network(
                decoder_input_ids=at_rows(canvas, index), past_key_values=cache, decoder_attention_mask=masks,
                self_conditioning_logits=at_rows(rows.conditioning, index), decoder_position_ids=positions,
            ).logits.clone()  # fmt: skip
            return found

        return self.in_chunks(ask, len(canvas), Budget(denoiser_calls=len(canvas)))

    def undecided(self, group: int, rows: GemmaRows, block: int, timestep: int) -> Undecided:
        """What of the canvas is not committed, of particles that are neither frozen nor finished."""
        tokens = self.tokens(rows, group)[:, : (block + 1) * self.canvas]
        open_ = torch.zeros_like(tokens, dtype=torch.bool)
        if self._ended(rows) or timestep == self.steps_per_block:
            return Undecided(rows, tokens, open_)
        here = ~(rows.frozen | rows.finished)[:, None].expand(-1, self.canvas)
        committed = (rows.scheduler or {}).get("_committed")
        here = here if committed is None else here & ~committed
        if not bool(here.any()):
            return Undecided(rows, tokens, open_)
        open_[:, -self.canvas :] = here
        canvas = self._canvas(rows)
        logits, arguments = self._logits(group, rows, canvas), self._arguments()

        def law(slot: int) -> Tensor:
            index = torch.tensor([slot], device=self.device)
            scheduler = self._with(at_rows(rows.scheduler, index))
            found = drawn_law(scheduler, logits[index], canvas[index], timestep, arguments)
            return found.probs[0, here[slot]].log()

        return Undecided(replace(rows, logits=logits), tokens, open_, law)

    def transition_probs(self, state: GroupState, group: int = 0) -> Float64[Tensor, "K C V"]:
        """Exact probabilities of each token of the canvas after the next step, each position by itself.

        Args:
            state: Before the step, within a canvas.
            group: Whose particles.

        Raises:
            ValueError: The step begins a canvas, has sweeps of a corrector, or the scheduler is none that fklit knows.
        """
        block, within = divmod(state.steps, self.steps_per_block)
        if (within == 0 and block) or within < self.corrected:
            raise ValueError(
                f"expected a step within a canvas and without a corrector, got step {within} of canvas {block}; ask at "
                "another step."
            )
        rows = state.groups[group]
        canvas = self._canvas(rows)
        with torch.no_grad():
            logits = self._logits(group, rows, canvas)
            scheduler = self._with(rows.scheduler)
            probs = renoising_probs(scheduler, logits, canvas, within, self._arguments())
            shaped = probed(scheduler, logits, canvas, within, self._arguments()).pred_logits
        if self.call["confidence_threshold"] is None:
            return probs
        after = self._frozen(rows, shaped)
        certain = torch.zeros_like(probs).scatter(2, after.argmax[..., None], 1.0)
        return torch.where(after.frozen[:, None, None], certain, probs)

    def tokens(self, rows: GemmaRows, group: int = 0) -> Int64[Tensor, "K L"]:
        """Generated tokens; the end token where a call stopped before."""
        return self._whole(rows.tokens[:, self.prompts[group][0].shape[1] :], self.eos or 0)

    def written_at(self, rows: GemmaRows, group: int) -> Int64[Tensor, "K L"]:
        """The step that last changed each."""
        return self._whole(rows.written_at[:, self.prompts[group][0].shape[1] :], -1)

    def _whole(self, values: Tensor, filling: int) -> Tensor:
        return torch.nn.functional.pad(values, (0, self.canvases * self.canvas - values.shape[1]), value=filling)

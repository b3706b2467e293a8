"""LLaDA2 of diffusers: masked blocks, committed by confidence and edited, as a model that owns its steps."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from fklit.feynman_kac.budget import Budget
from fklit.pipelines.sampler import DeterministicSamplerError
from fklit.pipelines.tokens.arguments import TokenSettings, call_arguments
from fklit.pipelines.tokens.block_model import BlockTextModel, Undecided
from fklit.pipelines.tokens.drawn import DrawnLaw, drawn_law, step_arguments
from fklit.pipelines.tokens.masking import masking_probs
from fklit.pipelines.tokens.rows import GroupState, Rows, at_rows


@dataclass(frozen=True)
class LLaDA2Rows(Rows):
    """The particles of one prompt.

    Attributes:
        tokens: (K, l), prompt and all blocks; what is not generated is masked.
        finished: (K,), whether an end token stands behind no mask.
        continues: (K,), whether the pipeline would go on with the current block if the particle were alone.
        had_masks: (K,), whether masks stood in the block before the last step.
        post_steps: (K,), steps of the block without masks.
        written_at: (K, l), the step that last changed each token, -1 for none.
        logits: (K, L, V), predictions of the current block, if they are at hand.
    """

    tokens: Int64[Tensor, "K l"]
    finished: Bool[Tensor, " K"]
    continues: Bool[Tensor, " K"]
    had_masks: Bool[Tensor, " K"]
    post_steps: Int64[Tensor, " K"]
    written_at: Int64[Tensor, "K l"]
    logits: Tensor | None = None

    @classmethod
    def forgets(cls) -> frozenset[str]:
        """The predictions."""
        return frozenset({"logits"})


@dataclass(frozen=True)
class _Prompt:
    """Where a prompt's blocks lie.

    Attributes:
        ids: (1, P).
        attention: (1, l), 1 for what the network sees.
        first: The block that generation begins in.
        blocks: The block behind the last.
    """

    ids: Tensor
    attention: Tensor
    first: int
    blocks: int


class LLaDA2Model(BlockTextModel):
    """The model of one run; see `BlockTextModel`.

    A particle takes the steps that a call of it alone takes. (A call of several rows goes on editing a complete row
    while others have masks, which makes the law of a row depend on its neighbors.)

    Args:
        pipeline: An `LLaDA2Pipeline`.
        prompts: B prompts.
        given: Arguments of its call, and `num_draws`.
        max_batch: Rows of the denoiser at once; None for K.

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
        tokenizer = pipeline.tokenizer
        if tokenizer is None:
            raise ValueError(
                f"expected a tokenizer in {type(pipeline).__name__}, as rewards take texts, got None; give it one."
            )
        self.mask = pipeline.mask_token_id if call["mask_token_id"] is None else call["mask_token_id"]
        if self.mask is None:
            raise ValueError(
                f"expected a tokenizer with a mask token, or mask_token_id in pipeline_kwargs, got neither of "
                f"{type(pipeline).__name__}; give mask_token_id."
            )
        eos = pipeline.eos_token_id if call["eos_token_id"] is None else call["eos_token_id"]
        self.block_length = call["block_length"] or pipeline.scheduler.config.block_length
        pipeline.check_inputs(
            prompt=prompts[0], messages=None, input_ids=None, block_length=self.block_length, output_type="text",
            callback_on_step_end=None, callback_on_step_end_tensor_inputs=None,
            **{name: call[name] for name in
               ("gen_length", "num_inference_steps", "minimal_topk", "threshold", "sampling_method")},
        )  # fmt: skip
        self.length = int(call["gen_length"])
        self.steps_with_masks = min(int(call["num_inference_steps"]), self.length // int(call["minimal_topk"]))
        self.edits = call["editing_threshold"] is not None and call["editing_threshold"] > 0
        device = torch.device(pipeline._execution_device)
        self.prompts = [self._prompt(pipeline, prompt, call, device) for prompt in prompts]
        super().__init__(
            pipeline, call, tokenizer=tokenizer, eos=eos, num_groups=len(prompts), max_batch=max_batch,
            num_blocks=max(prompt.blocks - prompt.first for prompt in self.prompts),
            steps_per_block=self.steps_with_masks + (int(call["max_post_steps"]) if self.edits else 0),
        )  # fmt: skip
        self.scheduler = copy.deepcopy(pipeline.scheduler)
        self.scheduler.set_timesteps(self.steps_with_masks, device=device, block_length=self.block_length)
        self._vocabulary = 0

    def check(self, settings: TokenSettings) -> None:
        """Refuse several particles that cannot part.

        Raises:
            DeterministicSamplerError: The call draws nothing.
        """
        call = self.call
        greedy = call["temperature"] == 0 or call["sampling_method"] == "greedy"
        if greedy and settings.num_particles > 1 and settings.reward_scale != 0:
            raise DeterministicSamplerError(
                f"expected a call of {type(self.pipeline).__name__} that draws tokens, got "
                f"temperature={call['temperature']:g} with sampling_method={call['sampling_method']!r}, which gives "
                "every particle the same text; set a temperature such as 0.7 and sampling_method='multinomial' in "
                "pipeline_kwargs."
            )

    def _prompt(self, pipeline: Any, prompt: str, call: Mapping[str, Any], device: torch.device) -> _Prompt:
        ids, attention = pipeline._prepare_input_ids(
            prompt=prompt, messages=None, input_ids=None, chat_template_kwargs=None,
            use_chat_template=call["use_chat_template"], add_generation_prompt=call["add_generation_prompt"],
        )  # fmt: skip
        number = ids.shape[1]
        blocks = -(-(number + self.length) // self.block_length)
        seen = torch.zeros(1, blocks * self.block_length, dtype=torch.long, device=device)
        seen[:, :number] = attention.to(device)
        seen[:, number : number + self.length] = 1
        return _Prompt(ids.long().to(device), seen, number // self.block_length, blocks)

    @property
    def decoder(self) -> Any:
        """The tokenizer."""
        return self.tokenizer

    def start(self, group: int, num_particles: int) -> LLaDA2Rows:
        """The prompt and masks."""
        prompt = self.prompts[group]
        tokens = torch.full((num_particles, prompt.attention.shape[1]), self.mask, device=self.device)
        tokens[:, : prompt.ids.shape[1]] = prompt.ids
        no = torch.zeros(num_particles, dtype=torch.bool, device=self.device)
        return LLaDA2Rows(tokens, no, ~no, ~no, no.long(), torch.full_like(tokens, -1))

    def _begun(self, rows: LLaDA2Rows) -> LLaDA2Rows:
        """The rows at the begin of a block."""
        yes = torch.ones_like(rows.finished)
        return replace(rows, continues=~rows.finished, had_masks=yes, post_steps=torch.zeros_like(rows.post_steps))

    def _waits(self, group: int, rows: LLaDA2Rows, block: int, within: int) -> bool:
        """Whether the pipeline's call for the group would not take this step."""
        prompt = self.prompts[group]
        if prompt.first + block >= prompt.blocks or bool(rows.finished.all()):
            return True
        # As long as any row has masks, the call goes on, and draws; also of rows that are complete.
        has_masks = bool(rows.had_masks.any()) and within < self.steps_with_masks
        return within > 0 and not (bool(rows.continues.any()) or has_masks)

    def advance(
        self, group: int, rows: LLaDA2Rows, block: int, within: int, generator: torch.Generator | None
    ) -> LLaDA2Rows:
        """A step of the scheduler on the block; complete and finished particles stay."""
        if self._waits(group, rows, block, within):
            return replace(rows, logits=None)
        rows = self._begun(rows) if within == 0 else rows
        first, last = self._place(group, block)
        here = rows.tokens[:, first:last]
        output = self.scheduler.step(
            model_output=self._logits(group, rows, last),
            timestep=within,
            sample=here,
            **step_arguments(self.scheduler, {**self._arguments(group, block), "generator": generator}),
        )
        moved = (output.transfer_index | output.editing_transfer_index) & rows.continues[:, None]
        tokens, when = rows.tokens.clone(), rows.written_at.clone()
        tokens[:, first:last] = torch.where(moved, output.prev_sample, here)
        when[:, first:last].masked_fill_(moved, block * self.steps_per_block + within)
        finished = rows.finished.clone()
        if self.call["eos_early_stop"] and self.eos is not None:
            finished = self.scheduler.check_eos_finished(
                cur_x=tokens[:, :last], sampled_tokens=output.sampled_tokens, final_transfer=moved, finished=finished,
                eos_token_id=self.eos, mask_token_id=self.mask, prompt_length=self.prompts[group].ids.shape[1],
            )  # fmt: skip
        had_masks = (here == self.mask).any(dim=1)
        post_steps = rows.post_steps + (~had_masks).long()
        goes_on = [
            self.scheduler.check_block_should_continue(
                step_idx=within + 1, masks_remaining=bool(had_masks[row]), editing_enabled=self.edits,
                editing_transfer_index=output.editing_transfer_index[row], post_steps=int(post_steps[row]),
                max_post_steps=self.call["max_post_steps"], finished=finished[row : row + 1],
            )
            for row in range(len(here))
        ]  # fmt: skip
        continues = rows.continues & torch.tensor(goes_on, device=self.device)
        return LLaDA2Rows(tokens, finished, continues, had_masks, post_steps, when)

    def _place(self, group: int, block: int) -> tuple[int, int]:
        """Where the n-th block of a group begins and ends."""
        number = self.prompts[group].first + block
        return number * self.block_length, (number + 1) * self.block_length

    def _arguments(self, group: int, block: int) -> dict[str, Any]:
        """Of the scheduler's step."""
        first, last = self._place(group, block)
        given = torch.arange(first, last, device=self.device) < self.prompts[group].ids.shape[1]
        names = ("temperature", "top_p", "top_k", "sampling_method", "threshold", "editing_threshold", "minimal_topk")
        return {"mask_token_id": self.mask, "prompt_mask": given, **{name: self.call[name] for name in names}}

    def _logits(self, group: int, rows: LLaDA2Rows, last: int) -> Tensor:
        """Predictions of the block that ends at `last`; of no meaning where no particle would use them."""
        if rows.logits is not None:
            return rows.logits
        if not bool(rows.continues.any()):  # the scheduler only draws, as it does in the pipeline's call
            return torch.zeros(len(rows.tokens), self.block_length, self._vocabulary, device=self.device)
        attention = self.prompts[group].attention[:, :last]
        positions = torch.arange(last, device=self.device)[None]

        def ask(index: Tensor | None, count: int) -> Tensor:
            output = self.pipeline.model(
                at_rows(rows.tokens, index)[:, :last],
                attention_mask=attention.expand(count, -1),
                position_ids=positions.expand(count, -1),
            )
            found: Tensor = output.logits[:, -self.block_length :, :]
            return found

        logits = self.in_chunks(ask, len(rows.tokens), Budget(denoiser_calls=len(rows.tokens)))
        self._vocabulary = logits.shape[-1]
        return logits

    def undecided(self, group: int, rows: LLaDA2Rows, block: int, timestep: int) -> Undecided:
        """The masks of the current block, of particles that go on."""
        first, last = self._place(group, block)
        prompt = self.prompts[group].ids.shape[1]
        end = min(last, prompt + self.length)
        tokens = rows.tokens[:, prompt:end]
        open_ = (tokens == self.mask) & rows.continues[:, None]
        open_[:, : max(first - prompt, 0)] = False
        if self._waits(group, rows, block, timestep) or not bool(open_.any()):
            return Undecided(rows, tokens, torch.zeros_like(open_))
        logits, begin = self._logits(group, rows, last), max(first - prompt, 0)

        def law(slot: int) -> Tensor:
            found = self._law(logits[slot : slot + 1], rows.tokens[slot : slot + 1], group, block, timestep).probs[0]
            return found[max(prompt - first, 0) : end - first][open_[slot, begin:]].log()

        return Undecided(replace(rows, logits=logits), tokens, open_, law)

    def _law(self, logits: Tensor, tokens: Tensor, group: int, block: int, timestep: int) -> DrawnLaw:
        first, last = self._place(group, block)
        return drawn_law(self.scheduler, logits, tokens[:, first:last], timestep, self._arguments(group, block))

    def transition_probs(self, state: GroupState, group: int = 0) -> Float64[Tensor, "K L V"]:
        """Exact probabilities of each token of the current block after the next step, each position by itself.

        Tokens are drawn independently; which of them are committed depends on all, so the law of the block is not the
        product of these.

        Args:
            state: Before the step.
            group: Whose particles.
        """
        block, within = divmod(state.steps, self.steps_per_block)
        rows = state.groups[group]
        first, last = self._place(group, block)
        rows = self._begun(rows) if within == 0 else rows
        here = rows.tokens[:, first:last]
        with torch.no_grad():
            law = self._law(self._logits(group, rows, last), rows.tokens, group, block, within)
        if self._waits(group, rows, block, within):
            return torch.zeros_like(law.probs).scatter(2, here[..., None], 1.0)
        schedule, arguments = self.scheduler._transfer_schedule, self._arguments(group, block)
        editing = self.call["editing_threshold"]
        return masking_probs(
            law,
            here,
            mask=self.mask,
            given=arguments["prompt_mask"],
            moves=rows.continues,
            number=int(schedule[min(within, len(schedule) - 1)]),
            threshold=self.call["threshold"],
            editing_threshold=self.scheduler.config.get("editing_threshold") if editing is None else editing,
        )

    def tokens(self, rows: LLaDA2Rows, group: int = 0) -> Int64[Tensor, "K L"]:
        """Generated tokens."""
        prompt = self.prompts[group].ids.shape[1]
        return rows.tokens[:, prompt : prompt + self.length]

    def written_at(self, rows: LLaDA2Rows, group: int) -> Int64[Tensor, "K L"]:
        """The step that last changed each."""
        prompt = self.prompts[group].ids.shape[1]
        return rows.written_at[:, prompt : prompt + self.length]

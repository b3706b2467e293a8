"""Arguments of the call of a pipeline of tokens: its own defaults, what a user changes, and what fklit gives itself."""

import inspect
from collections.abc import Mapping
from typing import Any, Protocol


class TokenSettings(Protocol):
    """What of the settings of a run the adapters read."""

    @property
    def pipeline_kwargs(self) -> Mapping[str, Any] | None:
        """Arguments of the pipeline's call, and `num_draws`."""
        ...

    @property
    def max_batch(self) -> int | None:
        """Rows that a network gets at once."""
        ...

    @property
    def num_particles(self) -> int:
        """K."""
        ...

    @property
    def reward_scale(self) -> float | None:
        """Of the target; None for what the reward suggests."""
        ...


NUM_DRAWS = 4

# What the run itself gives or takes, and what would stand in the way of particles.
_REFUSED = {
    "prompt": "give prompts to fklit.steer",
    "messages": "give prompts to fklit.steer, which the pipeline puts into its chat template",
    "input_ids": "give prompts to fklit.steer",
    "attention_mask": "give prompts to fklit.steer",
    "image": "particles have no pictures of their own; give texts",
    "generator": "set seed",
    "output_type": "fklit reads the samples itself",
    "return_dict": "fklit.steer returns a result of its own",
    "num_images_per_prompt": "set num_particles",
    "num_designs_per_prompt": "set num_particles",
    "latents_bb_ca": "particles begin with noise of their own",
    "latents_local_latents": "particles begin with noise of their own",
    "latents": "particles begin with masks",
    "prompt_embeds": "give prompts to fklit.steer",
    "encoder_hidden_states": "give prompts to fklit.steer",
    "negative_prompt_embeds": "give negative_prompt",
    "negative_encoder_hidden_states": "give negative_prompt",
    "callback": "callbacks may change tokens, which the weights would not know of",
    "callback_steps": "there are no callbacks",
    "callback_on_step_end": "callbacks may change tokens, which the weights would not know of",
    "callback_on_step_end_tensor_inputs": "there are no callbacks",
    "cache_implementation": "caches grow and move with the particles",
}


def call_arguments(pipeline: Any, given: Mapping[str, Any] | None, *, draws: bool = True) -> dict[str, Any]:
    """Return all arguments of a call but prompts, by name, with `num_draws`.

    Args:
        pipeline: Of diffusers.
        given: `pipeline_kwargs` of the run: arguments of the pipeline's call, and `num_draws`, the clean samples that
            are drawn of each particle where a reward scores on the way (4).
        draws: Whether there is a `num_draws`.

    Raises:
        ValueError: The call has no such argument, or fklit gives it.
    """
    name, given = type(pipeline).__name__, dict(given or {})
    parameters = inspect.signature(type(pipeline).__call__).parameters
    usual = {key: item.default for key, item in parameters.items() if key != "self" and key not in _REFUSED}
    extra = ["num_draws"] if draws else []
    for key, value in given.items():
        if key in _REFUSED and key in parameters:
            raise ValueError(
                f"expected pipeline_kwargs without {key} for {name}, got {value!r}; omit it: {_REFUSED[key]}."
            )
        if key not in usual and key not in extra:
            raise ValueError(
                f"expected pipeline_kwargs among {', '.join([*extra, *usual])} for {name}, got {key}; omit it."
            )
    if not draws:
        return {**usual, **given}
    number = given.pop("num_draws", NUM_DRAWS)
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError(f"expected num_draws as an integer of at least 1, got {number!r}; give one.")
    return {**usual, **given, "num_draws": number}

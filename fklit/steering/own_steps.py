"""Steering of any model that owns its steps, such as a masked diffusion over text or molecules.

`fklit.steer(model, prompts, ...)` takes any object with a method `steering_model(prompts, settings)` that returns a
`SteeringModel`. The model knows its states and draws; rewards, potentials, schedules and results are the same as for
pipelines.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float64
from torch import Tensor

from fklit.feynman_kac.budget import Budget
from fklit.feynman_kac.randomness import Generators
from fklit.steering.settings import SteeringSettings


class SteeringModel(Protocol):
    """A `FeynmanKacModel` (a state is a tree of tensors (B, K, ...)) that says what of its states is scored.

    Attributes:
        num_steps: T.
        modality: What it makes: "text", or whatever rewards call theirs in `accepts`.
        sampler: Name of its sampler, for records.
        num_draws: N, clean samples that are drawn of each particle at a scored step.
        budget: Denoiser calls since `initial`.
    """

    num_steps: int
    modality: str
    sampler: str
    num_draws: int

    @property
    def budget(self) -> Budget:
        """What was spent since `initial`."""
        ...

    def initial(self, num_groups: int, num_particles: int, generator: Generators) -> Any:
        """The initial state, one group a prompt."""
        ...

    def step(
        self, state: Any, t: int, log_weights: Tensor, generator: Generators
    ) -> tuple[Any, Float64[Tensor, "B K"]]:
        """The state after step t, and the importance ratio `log p - log q` of what was drawn: 0 for its own law."""
        ...

    def clean_samples(self, state: Any, generator: Generators) -> tuple[Any, Any]:
        """Clean samples that a state predicts.

        Args:
            state: After some step.
            generator: One a group, of a stream that is independent of that of the steps.

        Returns:
            The state, with what of the predictions the next step uses again, and B * K * N samples as a reward takes
            them: the N draws of a particle side by side, the K particles of a group side by side.
        """
        ...

    def finished(self, state: Any) -> tuple[Any, Tensor]:
        """What a run has made.

        Returns:
            B * K samples as a reward takes them, and the tensor (B, K, ...) that stands for them in the result.
        """
        ...


@runtime_checkable
class Describes(Protocol):
    """What a `SteeringModel` may have beside."""

    def described(self, state: Any) -> list[dict[str, Any]]:
        """What is known of each of the B * K finished samples but the sample itself, JSON-able, for records.

        Args:
            state: The finished one.
        """
        ...


@runtime_checkable
class Steerable(Protocol):
    """What `fklit.steer` takes beside pipelines."""

    def steering_model(self, prompts: Sequence[str], settings: SteeringSettings) -> SteeringModel:
        """The model of a run.

        Args:
            prompts: B prompts.
            settings: All settings of the run; arguments of the model are in `pipeline_kwargs`, and it refuses those
                that it does not know.
        """
        ...


@runtime_checkable
class CountsGroups(Protocol):
    """What a `Steerable` may have beside: one whose runs need no prompts."""

    def count_groups(self, settings: SteeringSettings) -> int:
        """How many groups of particles a run without prompts has.

        Args:
            settings: Of the run.
        """
        ...


_OF_PIPELINES = (
    *("decode", "preview_decoder", "latent_reward", "stop_scoring_above", "decode_batch"),
    *("scheduler", "flow_kernel", "noise_level", "proposal", "look_ahead", "fewer_particles", "search"),
)


def name_of(model: object) -> str:
    """The name of a model for messages: its `name`, or its class."""
    name = getattr(model, "name", None)
    return name if isinstance(name, str) else type(model).__name__


def check_settings(settings: SteeringSettings, model: object) -> None:
    """Refuse settings that only a diffusers pipeline has.

    Raises:
        ValueError: One differs from its default.
    """
    fields = type(settings).__dataclass_fields__
    for name in _OF_PIPELINES:
        value, usual = getattr(settings, name), fields[name].default
        if value != usual:
            raise ValueError(f"expected {name}={usual!r}, as {name_of(model)} owns its steps, got {value!r}; omit it.")

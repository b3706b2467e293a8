"""A reward of pictures as a reward of videos."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor

from fklit.checks import check_choice, check_count
from fklit.rewards.base import Accepts, Metadata, Reward, Samples
from fklit.rewards.function import Function

FrameReduction = Literal["mean", "min", "max", "median", "first", "last"]

_REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda scores: scores.mean(1),
    "min": lambda scores: scores.amin(1),
    "max": lambda scores: scores.amax(1),
    "median": lambda scores: scores.quantile(0.5, dim=1),
    "first": lambda scores: scores[:, 0],
    "last": lambda scores: scores[:, -1],
}


class Frames(Reward):
    """Scores frames of a video by a reward of pictures, and reduces them to one number.

    ```python
    fklit.rewards.Frames(fklit.rewards.CLIPScore(), every=8)  # the mean over frames 0, 8, 16, ...
    ```

    Pictures, as a video pipeline makes them with `num_frames=1`, are videos of one frame to it.

    Args:
        reward: A reward of pictures, or a function of (images, prompts). It is given at most its own `max_batch`
            frames at once, all frames of the call where it has none.
        every: Frames 0, every, 2 every, ... are scored; 1 for all. The cost grows with their number.
        reduce: "mean", "min" (good only if every frame is), "max", "median", "first" or "last".

    Raises:
        ValueError: The reward does not take pictures, or an argument is out of range.
    """

    accepts = "video"
    needs_prompts = False  # the reward of pictures refuses missing prompts by itself
    uses_metadata = True  # and reads what it wants

    def __init__(self, reward: Reward | Callable[..., Any], *, every: int = 1, reduce: FrameReduction = "mean") -> None:
        super().__init__()
        if not isinstance(reward, Reward):
            reward = Function(reward)
        if reward.refused("image") is not None:
            raise ValueError(
                f"Frames expected a reward of pictures, got {reward.display_name}, which takes {reward.accepts}; give "
                "another."
            )
        self.every = check_count("every", every)
        check_choice("reduce", reduce, tuple(_REDUCTIONS))
        self.reward = reward
        self._count = 0  # videos of the last call
        self.reduce = reduce
        self.typical_range = reward.typical_range
        self.suggested_scale = reward.suggested_scale

    @property
    def display_name(self) -> str:
        """The reward of pictures, and how its scores become one."""
        return f"Frames({self.reward.display_name}, {self.reduce})"

    def build(self) -> None:
        """Loads the reward of pictures, whose weights may come with a range and a scale."""
        self.reward.load()
        self.typical_range = self.reward.typical_range
        self.suggested_scale = self.reward.suggested_scale

    def score(self, samples: Tensor, prompts: Sequence[str], metadata: Metadata | None = None) -> Tensor:
        """The reduced score (n,) of videos (n, F, C, H, W)."""
        chosen = samples[:, :: self.every]
        count, frames = chosen.shape[:2]
        self._count = count
        # The frames of a sample lie side by side, each with the prompt of its sample.
        repeated = [prompt for prompt in prompts for _ in range(frames)]
        known = None if metadata is None else [item for item in metadata for _ in range(frames)]
        scores = self.reward(chosen.flatten(0, 1), repeated, known)
        return _REDUCTIONS[self.reduce](scores.reshape(count, frames))

    def terms(self) -> dict[str, Tensor]:
        """Parts of the reward of pictures, each reduced over the frames by itself."""
        reduced = _REDUCTIONS[self.reduce]
        return {name: reduced(values.reshape(self._count, -1)) for name, values in self.reward.terms().items()}

    def refused(self, modality: Accepts) -> Reward | None:
        """Takes pictures, too: videos of one frame."""
        return None if modality == "image" else super().refused(modality)

    def forward(
        self, samples: Samples, prompts: Sequence[str] | None = None, metadata: Metadata | None = None
    ) -> Tensor:
        """Scores videos (N, F, C, H, W) in [0, 1], or pictures (N, C, H, W); see `Reward.forward`."""
        if isinstance(samples, Tensor) and samples.ndim == 4:
            samples = samples.unsqueeze(1)
        return super().forward(samples, prompts, metadata)

"""The reward contract: a module that scores a batch of samples, higher is better."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

Samples = Tensor | Sequence[Any]
"""Images (N, C, H, W) or videos (N, F, C, H, W) as a float tensor in [0, 1], waveforms (N, C, T), N texts or designs.

A design is an object whose `modality` is "structure", such as `fklit.pipelines.proteins.ProteinDesign`.
"""

Accepts = Literal["image", "video", "audio", "text", "structure", "any"]
"""What a reward takes."""

Metadata = Sequence[Mapping[str, Any]]
"""What is known about the prompt of each of N samples, N mappings; the prompt itself is under `"prompt"`."""

_FORMS = {
    "image": "images (N, C, H, W) in [0, 1]",
    "video": "videos (N, F, C, H, W) in [0, 1]",
    "audio": "waveforms (N, C, T)",
}
_AXES = {"image": 4, "video": 5, "audio": 3}
_RANGE_TOLERANCE = 1e-2  # bicubic resizing and half-precision decoders overshoot [0, 1] by less than this


class RewardError(RuntimeError):
    """A reward failed or returned something that is not one number a sample."""


class Reward(nn.Module, ABC):
    """Scores samples: `reward(samples, prompts, metadata)` gives a float tensor (N,), higher is better.

    Subclasses write `score` and, when they own weights, `build`. Everything else lives here: lazy building,
    micro-batches, checks of what goes in and comes out. A reward is an `nn.Module`, so it follows `.to(device)` and
    works inside any Lightning module. It is frozen and stays in evaluation mode; gradients flow to the samples if
    these require them and `score` is differentiable.

    What is promised about the result: float32 or float64 (half precision is raised to float32, integers and booleans
    are cast to float32), shape (N,), on the device of the reward. NaN and infinities pass through unchanged, because
    the particle system has the policy for them. Rows do not depend on each other.

    Attributes:
        accepts: What `samples` may be: "image", "video", "audio", "text", "structure" or "any".
        needs_prompts: Whether `prompts=None` is refused.
        uses_metadata: Whether `score` takes what is known about each prompt as a third argument, `metadata`.
        typical_range: Lowest and highest value seen in ordinary use, or None if unknown.
        suggested_scale: A `reward_scale` to start from, or None if unknown. Steering samples from
            `p(x | prompt) exp(reward_scale * reward(x))`, so what counts is `reward_scale` times the standard
            deviation of the reward among the particles of a prompt; 1 to 5 is a working range of that product.
        upper_bound: What no score exceeds (0 of log probabilities), or None if there is no bound or it is unknown;
            calibrations fit other curves with one.

    Args:
        max_batch: Most samples given to `score` at once; None for no limit.
        pad: Fill the last micro-batch up to `max_batch` by repeating its last sample (the extra scores are dropped).
            Kernels round differently for different batch sizes; with padding a sample's score has the same bits
            in whatever batch it arrives.

    Raises:
        ValueError: `max_batch` is below 1, or `pad` is set without `max_batch`.
    """

    accepts: ClassVar[Accepts] = "image"
    needs_prompts: ClassVar[bool] = True
    uses_metadata: bool = False
    typical_range: tuple[float, float] | None = None
    suggested_scale: float | None = None
    upper_bound: float | None = None

    _place: Tensor

    def __init__(self, *, max_batch: int | None = None, pad: bool = False) -> None:
        super().__init__()
        if max_batch is not None and max_batch < 1:
            raise ValueError(f"expected max_batch of at least 1, got {max_batch}; give None for no limit.")
        if pad and max_batch is None:
            raise ValueError("expected max_batch with pad=True, got None; set max_batch to the size to fill up to.")
        self.max_batch = max_batch
        self.pad = pad
        self._loaded = False
        # Moves with .to(), and so remembers device and dtype for weights that are built later.
        self.register_buffer("_place", torch.empty(0, dtype=torch.float32), persistent=False)
        self.training = False

    @property
    def device(self) -> torch.device:
        """The device on which this reward computes."""
        return self._place.device

    @property
    def display_name(self) -> str:
        """How errors, warnings and records call this reward."""
        return type(self).__name__

    def build(self) -> None:  # noqa: B027  (optional hook: rewards without weights have nothing to build)
        """Creates weights and tokenizers on the CPU; called once by `load`. Rewards without any omit it."""

    def load(self) -> Self:
        """Builds the weights now instead of at the first call; calling it again does nothing.

        The weights end frozen, in evaluation mode, on `device`, and in the dtype asked for if `.half()`,
        `.bfloat16()` or `.double()` was called before. The global random state is as before.

        Returns:
            The reward itself.
        """
        if not self._loaded:
            # Constructors draw initial weights that are then overwritten: hence the fork. Weights that are created in
            # inference mode (Lightning's default for predict) could never again be part of a gradient: hence the exit.
            with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
                self.build()
                asked = None if self._place.dtype == torch.float32 else self._place.dtype
                self.to(device=self._place.device, dtype=asked)
            self._loaded = True
            self.eval()
            self.requires_grad_(False)
        return self

    def train(self, mode: bool = True) -> Self:
        """Does nothing except for reporting back: a reward stays in evaluation mode inside a model that is trained."""
        return super().train(False)

    def refused(self, modality: Accepts) -> "Reward | None":
        """Return the part of this reward that cannot score samples of a modality; None if all can."""
        return None if self.accepts in (modality, "any") else self

    def terms(self) -> dict[str, Tensor]:
        """The parts of the scores of the last call by name, (N,) each; of rewards without parts there are none.

        Runs ask for them after each call, so that records and TensorBoard show every part of a composite.
        """
        return {}

    @abstractmethod
    def score(self, samples: Any, prompts: Sequence[str]) -> Tensor:
        """Scores one micro-batch; with `uses_metadata` a third argument `metadata=None` gets n mappings.

        Args:
            samples: Images (n, C, H, W) or videos (n, F, C, H, W) in [0, 1] or waveforms (n, C, T) on `device`, or n
                texts; what `accepts` says.
            prompts: One prompt a sample; empty strings if the caller has none and `needs_prompts` is False.

        Returns:
            Scores (n,), higher is better.
        """

    def forward(
        self, samples: Samples, prompts: Sequence[str] | None = None, metadata: Metadata | None = None
    ) -> Tensor:
        """Scores a batch in micro-batches of at most `max_batch`.

        Args:
            samples: Images (N, C, H, W) or videos (N, F, C, H, W), float, in [0, 1], waveforms (N, C, T), or N texts.
                They are moved to `device`.
            prompts: N prompts, one a sample. None if the reward does not read them.
            metadata: What is known about the prompt of each sample, N mappings, for rewards that use it; None for
                nothing but the prompts, `{"prompt": ...}`.

        Returns:
            Scores (N,), float32 or float64, on `device`.

        Raises:
            ValueError: The samples are not what `accepts` says, are out of range, or differ in number from
                the prompts or the metadata.
            RewardError: `score` raises or returns anything but n real numbers.
        """
        count = self._check_samples(samples)
        names = self._check_prompts(prompts, count)
        known = self._check_metadata(metadata, names)
        self.load()
        if count == 0:
            return torch.zeros(0, device=self.device)
        if isinstance(samples, Tensor):
            samples = samples.to(self.device)
        size = self._at_once(count)
        chunks = [slice(start, start + size) for start in range(0, count, size)]
        return torch.cat([self._score_chunk(samples[chunk], names[chunk], known[chunk]) for chunk in chunks])

    def _at_once(self, count: int) -> int:
        """How many of `count` samples `score` gets at once."""
        return self.max_batch or count

    def _score_chunk(self, samples: Any, prompts: list[str], metadata: list[Mapping[str, Any]]) -> Tensor:
        count = len(prompts)
        missing = self.max_batch - count if self.pad and self.max_batch else 0
        if missing and isinstance(samples, Tensor):
            samples = torch.cat([samples, samples[-1:].expand(missing, *samples.shape[1:])])
        elif missing:
            samples = [*samples, *[samples[-1]] * missing]
        score: Any = self.score
        arguments = [[*given, *[given[-1]] * missing] for given in (prompts, metadata)[: 1 + self.uses_metadata]]
        try:
            scores = score(samples, *arguments)
        except RewardError:  # of a part of this reward, or with a sentence of its own
            raise
        except Exception as error:
            said = " ".join(str(error).split())
            raise RewardError(
                f"expected {count} score(s) from {self.display_name}, got {type(error).__name__}: {said}; "
                "fix the reward."
            ) from error
        return self._check_scores(scores, count + missing)[:count]

    def _check_scores(self, scores: object, count: int) -> Tensor:
        name = self.display_name
        if not isinstance(scores, Tensor):
            raise RewardError(
                f"expected a tensor of {count} scores from {name}, got a {type(scores).__name__}; return one."
            )
        if scores.shape != (count,):
            raise RewardError(
                f"expected scores ({count},) from {name}, got {tuple(scores.shape)}; return one score a sample."
            )
        if scores.is_complex():
            raise RewardError(f"expected real scores from {name}, got {scores.dtype}; return float32 or float64.")
        if scores.dtype not in (torch.float32, torch.float64):
            scores = scores.float()
        return scores.to(self.device)

    def _check_samples(self, samples: object) -> int:
        name = self.display_name
        if not isinstance(samples, Tensor):
            texts = list(samples) if isinstance(samples, Sequence) and not isinstance(samples, str) else None
            designs = bool(texts) and all(getattr(item, "modality", None) == "structure" for item in texts or ())
            if designs and self.accepts in ("structure", "any"):
                return len(texts or ())
            if self.accepts not in ("text", "any") or texts is None or not all(isinstance(item, str) for item in texts):
                wanted = "a list of designs" if self.accepts == "structure" else "a list of texts"
                wanted = f"a float tensor of {_FORMS[self.accepts]}" if self.accepts in _FORMS else wanted
                raise ValueError(f"{name} expected {wanted}, got a {type(samples).__name__}; convert it.")
            return len(texts)
        if self.accepts in ("text", "structure"):
            kind = "texts" if self.accepts == "text" else "designs"
            raise ValueError(f"{name} expected a list of {kind}, got a tensor {tuple(samples.shape)}; give {kind}.")
        if self.accepts == "any":
            if samples.ndim == 0:
                raise ValueError(f"{name} expected an axis of samples, got a tensor without axes; give (N, ...).")
            return samples.shape[0]
        if samples.ndim != _AXES[self.accepts] or not samples.is_floating_point():
            fix = "convert them (divide bytes by 255)"
            if self.accepts == "image" and samples.ndim == 5:
                fix = "score frames of videos with rewards.Frames(reward)"
            raise ValueError(
                f"{name} expected float {_FORMS[self.accepts]}, got {samples.dtype} {tuple(samples.shape)}; {fix}."
            )
        if samples.numel() and self.accepts != "audio":
            low, high = (float(value) for value in samples.detach().aminmax())
            if low < -_RANGE_TOLERANCE or high > 1 + _RANGE_TOLERANCE:  # NaN compares false: it passes through
                raise ValueError(
                    f"{name} expected {self.accepts}s in [0, 1], got values from {low:.3g} to {high:.3g}; scale them "
                    "(x / 2 + 0.5 brings [-1, 1] there, clamp removes overshoot)."
                )
        return samples.shape[0]

    def _check_metadata(self, metadata: object, prompts: list[str]) -> list[Mapping[str, Any]]:
        if metadata is None:
            return [{"prompt": prompt} for prompt in prompts]
        if not isinstance(metadata, Sequence) or not all(isinstance(item, Mapping) for item in metadata):
            raise ValueError(
                f"{self.display_name} expected metadata as a list of mappings, got {metadata!r}; give one a sample."
            )
        if len(metadata) != len(prompts):
            raise ValueError(
                f"{self.display_name} expected metadata for each of {len(prompts)} sample(s), got {len(metadata)}; "
                "repeat a prompt's for each of its particles."
            )
        return list(metadata)

    def _check_prompts(self, prompts: object, count: int) -> list[str]:
        name = self.display_name
        if prompts is None:
            if self.needs_prompts:
                raise ValueError(f"{name} expected {count} prompt(s), got None; give one a sample.")
            return [""] * count
        if isinstance(prompts, str) or not isinstance(prompts, Sequence):
            raise ValueError(f"{name} expected a list of prompts, got a {type(prompts).__name__}; give one a sample.")
        if len(prompts) != count:
            raise ValueError(
                f"{name} expected a prompt for each of {count} sample(s), got {len(prompts)}; repeat a prompt for "
                "each of its particles."
            )
        if not all(isinstance(prompt, str) for prompt in prompts):
            raise ValueError(f"{name} expected prompts that are strings, got other objects among them; convert them.")
        return list(prompts)

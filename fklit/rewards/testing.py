"""The contract tests of rewards, fklit's and yours. They import no test framework; pytest collects the subclasses.

```python
class TestMyReward(RewardTests):
    def make_reward(self, max_batch=None):
        return MyReward(max_batch=max_batch)
```
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from fklit.rewards.base import Reward


class RewardTests(ABC):
    """Mix-in: subclass it in a test file, say how the reward is made, and every promise of `Reward` is checked.

    Attributes:
        differentiable: Whether gradients must reach the samples (images only).
        tolerance: Largest difference between equal scores of different batch sizes, relative to the largest score.
    """

    differentiable: ClassVar[bool] = False
    tolerance: ClassVar[float] = 1e-4

    @abstractmethod
    def make_reward(self, max_batch: int | None = None) -> Reward:
        """A new reward; `max_batch` is handed on (composites, whose parts have their own, may ignore it)."""

    def make_samples(self, count: int) -> Tensor | list[str]:
        """`count` different samples; the default is smooth random images (count, 3, 64, 64) in [0, 1]."""
        noise = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        return torch.nn.functional.interpolate(noise, size=(64, 64), mode="bilinear", align_corners=False)

    def make_prompts(self, count: int) -> list[str]:
        """`count` prompts, several of them equal as in a run with particles."""
        return [("a red heart", "a cat left of a dog")[index // 2 % 2] for index in range(count)]

    def test_shape_and_dtype(self) -> None:
        """Scores have shape (N,) and are float32 or float64; an empty batch gives an empty tensor."""
        reward = self.make_reward()
        scores = self._scores(reward, 5)
        _check(scores.shape == (5,), f"five samples gave shape {tuple(scores.shape)}")
        _check(scores.dtype in (torch.float32, torch.float64), f"scores are {scores.dtype}")
        _check(bool(torch.isfinite(scores).all()), f"ordinary samples gave {scores.tolist()}")
        _check(reward(self.make_samples(1)[:0], []).shape == (0,), "an empty batch did not give an empty tensor")

    def test_device(self) -> None:
        """Scores are on the device of the reward, wherever the samples are."""
        kinds = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
        for kind in kinds:
            reward = self.make_reward().to(kind)
            scores = self._scores(reward, 2)
            _check(scores.device.type == reward.device.type == kind, f"asked for {kind}, got {scores.device}")

    def test_rows_do_not_depend_on_each_other(self) -> None:
        """A sample's score is the same alone and in a batch."""
        reward = self.make_reward()
        samples, prompts = self.make_samples(4), self.make_prompts(4)
        alone = torch.cat([reward(samples[i : i + 1], prompts[i : i + 1]) for i in range(4)])
        self._check_equal(reward(samples, prompts), alone, "alone and in a batch")

    def test_permutation(self) -> None:
        """Permuted samples give permuted scores."""
        reward = self.make_reward()
        samples, prompts = self.make_samples(4), self.make_prompts(4)
        order = [2, 0, 3, 1]
        moved = reward(_take(samples, order), [prompts[i] for i in order])
        self._check_equal(moved, reward(samples, prompts)[order], "in another order")

    def test_max_batch(self) -> None:
        """Micro-batches change nothing, whether they divide the batch or not."""
        whole = self._scores(self.make_reward(), 5)
        for size in (1, 2, 5, 100):
            self._check_equal(self._scores(self.make_reward(max_batch=size), 5), whole, f"with max_batch={size}")

    def test_deterministic(self) -> None:
        """Two calls, and two rewards made alike, give the same bits."""
        reward = self.make_reward()
        first = self._scores(reward, 4)
        _check(torch.equal(first, self._scores(reward, 4)), "two calls differ")
        _check(torch.equal(first, self._scores(self.make_reward(), 4)), "two rewards made alike differ")

    def test_leaves_global_random_state(self) -> None:
        """Building and calling consume no global randomness."""
        before = torch.get_rng_state()
        self._scores(self.make_reward(), 2)
        _check(torch.equal(before, torch.get_rng_state()), "the global random state has changed")

    def test_leaves_samples(self) -> None:
        """The samples are not written to."""
        samples = self.make_samples(3)
        before = copy.deepcopy(samples)
        self.make_reward()(samples, self.make_prompts(3))
        same = (
            torch.equal(samples, before)
            if isinstance(samples, Tensor) and isinstance(before, Tensor)
            else samples == before
        )
        _check(same, "the samples were changed")

    def test_no_gradient_leaks(self) -> None:
        """Plain samples give scores without a graph; no parameter of the reward asks for gradients."""
        reward = self.make_reward()
        scores = self._scores(reward, 2)
        _check(not scores.requires_grad, "scores of plain samples require gradients")
        _check(not any(p.requires_grad for p in reward.parameters()), "parameters of the reward require gradients")

    def test_stays_in_evaluation_mode(self) -> None:
        """`train()` of an enclosing module does not switch dropout on."""
        reward = self.make_reward().load()
        reward.train()
        _check(not any(module.training for module in reward.modules()), "train() put a part into training mode")

    def test_gradient(self) -> None:
        """If declared differentiable: finite gradients reach the images, also after a first call in inference mode."""
        if not self.differentiable:
            return
        reward = self.make_reward()
        samples = self.make_samples(2)
        _check(isinstance(samples, Tensor), "a differentiable reward is tested on tensors")
        with torch.inference_mode():
            reward(samples, self.make_prompts(2))
        images = torch.as_tensor(samples).clone().requires_grad_()
        (gradient,) = torch.autograd.grad(reward(images, self.make_prompts(2)).sum(), images)
        _check(bool(torch.isfinite(gradient).all()), "the gradient is not finite")
        _check(float(gradient.abs().max()) > 0, "the gradient is zero everywhere")

    def test_counts_must_match(self) -> None:
        """More or fewer prompts than samples are refused with both numbers."""
        reward = self.make_reward()
        for number in (1, 4):
            try:
                reward(self.make_samples(3), self.make_prompts(number))
            except ValueError as error:
                _check("3" in str(error) and str(number) in str(error), f"the message lacks the numbers: {error}")
            else:
                raise AssertionError(f"3 samples with {number} prompts were accepted")

    def test_range_is_stated(self) -> None:
        """The typical range is ordered, the suggested scale positive, and the class is documented."""
        reward = self.make_reward().load()
        if reward.typical_range is not None:
            low, high = reward.typical_range
            _check(low < high, f"typical_range={reward.typical_range} is not ordered")
        if reward.suggested_scale is not None:
            _check(reward.suggested_scale > 0, f"suggested_scale={reward.suggested_scale} is not positive")
        _check(bool(type(reward).__doc__), f"{type(reward).__name__} has no docstring")

    def _scores(self, reward: Reward, count: int) -> Tensor:
        scores = reward(self.make_samples(count), self.make_prompts(count))
        _check(isinstance(scores, Tensor), f"scores are a {type(scores).__name__}")
        return torch.as_tensor(scores)

    def _check_equal(self, left: Tensor, right: Tensor, what: str) -> None:
        limit = self.tolerance * float(right.abs().max().clamp(min=1e-6))
        gap = float((left - right).abs().max())
        _check(gap <= limit, f"scores differ by {gap:.3g} {what}; {limit:.3g} is allowed")


def _take(samples: Tensor | Sequence[str], order: list[int]) -> Any:
    return samples[order] if isinstance(samples, Tensor) else [samples[index] for index in order]


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)

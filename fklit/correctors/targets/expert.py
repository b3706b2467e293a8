"""Experts: what a target multiplies. A score on a noise path, and whatever else is known of it."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from fklit.checks import check_choice, check_count
from fklit.correctors.targets.conversions import PREDICTIONS, Prediction, to_score
from fklit.correctors.targets.path import NoisePath


@runtime_checkable
class Expert(Protocol):
    """A noised law `q_t`, known by its score.

    An expert may also have
    - `log_density(x, t) -> (B, K)`: exact; needed where exponents change in time, and for exact ratios;
    - `score_and_log_density(x, t)`: both at once;
    - `moments() -> (mean, variance)` of the data, each of the shape of an event: for the initial law, the
      normalizability check and the Gaussian drift control;
    - `tail_variance()`: the variance that rules the tails of the data in each coordinate, where it is not that of
      `moments`;
    - `event_shape`: the shape of one sample;
    - `family`: an object whose `scores(experts, x, t) -> list` evaluates several experts in one call.

    Attributes:
        path: the noise path of the law.
    """

    path: Any

    def score(self, x: Tensor, t: float) -> Tensor:
        """Return the score of `q_t` at x, of the shape of x, (B, K, *event)."""
        ...


@runtime_checkable
class HasLogDensity(Protocol):
    """An expert whose log density is known exactly."""

    def log_density(self, x: Tensor, t: float) -> Tensor:
        """Return `log q_t(x)`, (B, K)."""
        ...


@runtime_checkable
class HasMoments(Protocol):
    """An expert with a Gaussian surrogate of its data."""

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return mean and variance of each coordinate of the data."""
        ...


class ScoreModel:
    """A network on a noise path; `given` makes experts of it that share its calls.

    ::

        model = ScoreModel(unet, VariancePreserving(), prediction="epsilon", time=lambda path, t: 1000 * t)
        target = Guided(model.given(prompts), model.given(nothing), scale=4.0)      # one call of the network a step

    Args:
        network: called as `network(x, time)` or, for an expert with a condition, `network(x, time, condition)`; x is
            (N, *event), time (N,) in the dtype of x; returns (N, *event).
        path: the path it was trained on; any path for "edm".
        prediction: "score", "epsilon", "x0", "v", "flow" (see `conversions`), or "edm": a denoiser that is called with
            `x / a` and the noise `s / a` as its time, and so serves every path.
        time: from (path, t) to the number that the network takes as time; t itself if not given.
        event_shape: shape of one sample, so that samplers need not be told.
        moments: mean and variance of each coordinate of the data, if known.
        max_batch: most rows of one call; None for no limit.
    """

    def __init__(
        self,
        network: Callable[..., Tensor],
        path: NoisePath,
        *,
        prediction: Prediction | Literal["edm"] = "epsilon",
        time: Callable[[NoisePath, float], float] | None = None,
        event_shape: Sequence[int] | None = None,
        moments: tuple[Tensor, Tensor] | None = None,
        max_batch: int | None = None,
    ) -> None:
        if not callable(network):
            raise TypeError(f"network is a {type(network).__name__}; give a function or module of (x, time).")
        check_choice("prediction", prediction, (*PREDICTIONS, "edm"))
        if prediction == "edm" and time is not None:
            raise ValueError("prediction='edm' takes s / a as its time; leave time= away.")
        self.network = network
        self.path = path
        self.prediction: Prediction | Literal["edm"] = prediction
        self.time = time
        self.event_shape = None if event_shape is None else tuple(event_shape)
        self.data_moments = moments
        self.max_batch = None if max_batch is None else check_count("max_batch", max_batch)

    def given(self, condition: Tensor | None = None) -> "ModelExpert":
        """Return the expert of one condition: None, or a tensor (B, ...) with a row for each group."""
        return ModelExpert(self, condition)

    def scores(self, experts: Sequence["ModelExpert"], x: Tensor, t: float) -> list[Tensor]:
        """Return the scores of several experts of this network at x, (B, K, *event), in one call (or its chunks)."""
        groups, particles = x.shape[:2]
        rows = x.flatten(0, 1)
        scale, sigma = self.path.scale(t), self.path.sigma(t)
        number = sigma / scale if self.prediction == "edm" else t if self.time is None else self.time(self.path, t)
        inputs = torch.cat([rows] * len(experts))
        conditions = [expert.condition for expert in experts]
        if all(condition is None for condition in conditions):
            stacked = None
        else:
            stacked = torch.cat([_rows_of(condition, groups, particles) for condition in conditions])
        outputs = self._call(inputs / scale if self.prediction == "edm" else inputs, number, stacked)
        if outputs.shape != inputs.shape:
            raise ValueError(
                f"the network returned shape {tuple(outputs.shape)} for {tuple(inputs.shape)}; it must return one "
                "prediction of the sample's shape for each row."
            )
        kind: Prediction = "x0" if self.prediction == "edm" else self.prediction
        results = to_score(kind, outputs.to(x.dtype), inputs, scale=scale, sigma=sigma)
        return [part.reshape(x.shape) for part in results.chunk(len(experts))]

    def _call(self, inputs: Tensor, number: float, conditions: Tensor | None) -> Tensor:
        size = self.max_batch or inputs.shape[0]
        parts = []
        with torch.no_grad():
            for first in range(0, inputs.shape[0], size):
                rows = inputs[first : first + size]
                time = torch.full((rows.shape[0],), number, dtype=rows.dtype, device=rows.device)
                more = () if conditions is None else (conditions[first : first + size],)
                parts.append(self.network(rows, time, *more))
        return torch.cat(parts)


class ModelExpert:
    """One condition of a `ScoreModel`; made by `ScoreModel.given`."""

    def __init__(self, family: ScoreModel, condition: Tensor | None) -> None:
        self.family = family
        self.condition = condition
        self.path = family.path
        self.event_shape = family.event_shape
        known = family.data_moments
        if known is not None:
            self.moments = lambda: known

    def score(self, x: Tensor, t: float) -> Tensor:
        """Return the score at x, (B, K, *event)."""
        return self.family.scores([self], x, t)[0]


def _rows_of(condition: Tensor | None, groups: int, particles: int) -> Tensor:
    if condition is None:
        raise ValueError(
            "experts with and without a condition share one network; give all of them one (an empty prompt's embedding "
            "for the unconditional expert)."
        )
    if condition.shape[0] not in (1, groups):
        raise ValueError(
            f"a condition has {condition.shape[0]} rows for {groups} groups; give one row, or one for each group."
        )
    return condition.expand(groups, *condition.shape[1:]).repeat_interleave(particles, dim=0)

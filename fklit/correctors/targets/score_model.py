"""Networks as experts: every parameterization, conditions that share a call, and chunks."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from fklit.checks import check_choice, check_count
from fklit.correctors.targets.conversions import PREDICTIONS, Prediction, to_score
from fklit.correctors.targets.paths.noise_path import NoisePath


class ScoreModel:
    """A network on a noise path; `given` makes experts of it that share its calls.

    ```python
    model = ScoreModel(unet, VariancePreserving(), prediction="epsilon", time=lambda path, t: 1000 * t)
    target = Target.guided(model.given(prompts), model.given(empty), 4.0)  # one call of the network a step
    ```

    Args:
        network: called as `network(x, time)` or, for an expert with a condition, `network(x, time, condition)`; x is
            (N, *event), time (N,) in the dtype of x; returns (N, *event).
        path: the path it was trained on; any path for "edm".
        prediction: "score", "epsilon", "x0", "v", "flow" (see `conversions`), or "edm": a denoiser that is called with
            `x / a` and the noise `s / a` as its time, and so serves every path.
        time: from (path, t) to the number that the network takes as time; t itself if not given.
        event_shape: shape of one sample; samplers read it.
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
            raise TypeError(f"expected a function or module of (x, time), got network={network!r}; pass a callable.")
        check_choice("prediction", prediction, (*PREDICTIONS, "edm"))
        if prediction == "edm" and time is not None:
            raise ValueError("expected no time= with prediction='edm', got one; its time is s / a, so omit time=.")
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
                f"expected a prediction of shape {tuple(inputs.shape)}, got {tuple(outputs.shape)} from the network; "
                "return one of the sample's shape for each row."
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
            "expected a condition for every expert of a network, got experts with and without a condition; pass an "
            "empty prompt's embedding for the unconditional one."
        )
    if condition.shape[0] not in (1, groups):
        raise ValueError(
            f"expected a condition of 1 or {groups} rows, got {condition.shape[0]} rows for {groups} groups; pass one "
            "row, or one for each group."
        )
    return condition.expand(groups, *condition.shape[1:]).repeat_interleave(particles, dim=0)

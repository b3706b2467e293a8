"""Networks as experts: every parameterization, conditions that share a call, and chunks."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from fklit.checks import check_choice, check_count
from fklit.correctors.targets.conversions import PREDICTIONS, Prediction, to_score
from fklit.correctors.targets.network_call import Condition, NetworkCall, part_of, rows_of, stacked
from fklit.correctors.targets.paths.noise_path import NoisePath
from fklit.correctors.targets.paths.scheduler_path import SchedulerPath

_PREDICTION_TYPES: dict[str, Prediction] = {
    "epsilon": "epsilon",
    "sample": "x0",
    "v_prediction": "v",
    "flow_prediction": "flow",
}  # of diffusers


class ScoreModel:
    """A network on a noise path; `given` makes experts of it that share its calls.

    ```python
    model = ScoreModel.from_scheduler(pipeline.unet, pipeline.scheduler, event_shape=(4, 64, 64))
    target = Target.guided(model.given(prompts), model.given(empty), 4.0)  # one call of the network a step
    ```

    Args:
        network: called as `network(x, time)` or, for an expert with a condition, `network(x, time, condition)`; x is
            (N, *event), time (N,); returns (N, *event), or an object with it as `sample`. The UNets and transformers of
            diffusers are called by the names of their arguments, in evaluation mode and in their own dtype whatever
            that of the samples is; see `NetworkCall`.
        path: the path it was trained on; any path for "edm".
        prediction: "score", "epsilon", "x0", "v", "flow" (see `conversions`), or "edm": a denoiser that is called with
            `x / a` and the noise `s / a` as its time, and so serves every path.
        time: from (path, t) to the number that the network takes as time; if not given the path's own `timestep`
            (`SchedulerPath`), or t itself.
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
        self._network = NetworkCall(network)
        self.path = path
        self.prediction: Prediction | Literal["edm"] = prediction
        self.time = time
        self.event_shape = None if event_shape is None else tuple(event_shape)
        self.data_moments = moments
        self.max_batch = None if max_batch is None else check_count("max_batch", max_batch)

    @classmethod
    def from_scheduler(
        cls,
        network: Callable[..., Any],
        scheduler: Any,
        *,
        event_shape: Sequence[int] | None = None,
        moments: tuple[Tensor, Tensor] | None = None,
        max_batch: int | None = None,
    ) -> "ScoreModel":
        """Return a diffusers UNet or transformer on its scheduler's own path, with its own prediction type.

        Args:
            network: the denoiser, such as `pipeline.unet`.
            scheduler: the scheduler that it was trained with, such as `pipeline.scheduler`.
            event_shape: see `ScoreModel`.
            moments: see `ScoreModel`.
            max_batch: see `ScoreModel`.

        Raises:
            TypeError: if the scheduler has no `alphas_cumprod`.
            ValueError: for a prediction type of no meaning here.
        """
        name = getattr(getattr(scheduler, "config", None), "prediction_type", "epsilon")
        check_choice("prediction_type of the scheduler", name, tuple(_PREDICTION_TYPES))
        return cls(
            network,
            SchedulerPath.of(scheduler),
            prediction=_PREDICTION_TYPES[name],
            event_shape=event_shape,
            moments=moments,
            max_batch=max_batch,
        )

    def given(self, condition: Condition | None = None) -> "ModelExpert":
        """Return the expert of one condition.

        Args:
            condition: None, a tensor (B, ...) with a row for each group, or such tensors by the name of the network's
                argument, nested as it takes them (`added_cond_kwargs`).
        """
        return ModelExpert(self, condition)

    def scores(self, experts: Sequence["ModelExpert"], x: Tensor, t: float) -> list[Tensor]:
        """Return the scores of several experts of this network at x, (B, K, *event), in one call (or its chunks)."""
        groups, particles = x.shape[:2]
        rows = x.flatten(0, 1)
        scale, sigma = self.path.scale(t), self.path.sigma(t)
        number = sigma / scale if self.prediction == "edm" else self._time(t)
        inputs = torch.cat([rows] * len(experts))
        conditions = [expert.condition for expert in experts]
        if all(condition is None for condition in conditions):
            rows_of_all = None
        else:
            rows_of_all = stacked([rows_of(condition, groups, particles) for condition in conditions])
        outputs = self._call(inputs / scale if self.prediction == "edm" else inputs, number, rows_of_all)
        if outputs.shape != inputs.shape:
            raise ValueError(
                f"expected a prediction of shape {tuple(inputs.shape)}, got {tuple(outputs.shape)} from the network; "
                "return one of the sample's shape for each row."
            )
        kind: Prediction = "x0" if self.prediction == "edm" else self.prediction
        results = to_score(kind, outputs.to(x.dtype), inputs, scale=scale, sigma=sigma)
        return [part.reshape(x.shape) for part in results.chunk(len(experts))]

    def _time(self, t: float) -> float:
        if self.time is not None:
            return self.time(self.path, t)
        return self.path.timestep(t) if isinstance(self.path, SchedulerPath) else t

    def _call(self, inputs: Tensor, number: float, conditions: Any) -> Tensor:
        size = self.max_batch or inputs.shape[0]
        parts = []
        with torch.no_grad():
            for first in range(0, inputs.shape[0], size):
                rows = inputs[first : first + size]
                time = torch.full((rows.shape[0],), number, dtype=rows.dtype, device=rows.device)
                parts.append(self._network(rows, time, part_of(conditions, slice(first, first + size))))
        return torch.cat(parts)


class ModelExpert:
    """One condition of a `ScoreModel`; made by `ScoreModel.given`."""

    def __init__(self, family: ScoreModel, condition: Condition | None) -> None:
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

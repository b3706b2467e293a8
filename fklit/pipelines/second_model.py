"""A second model beside a pipeline's own: what has to agree, and its prediction for the samples of the first."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fklit.pipelines.call import build_call
from fklit.pipelines.denoisers import denoisers_of
from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.pipelines.microbatch import call_in_chunks, intercept_call, rows_of


class DifferentModelsError(UnsupportedPipelineError):
    """Two pipelines whose noised laws do not live in one space, or on one noise path."""


class _CapturedError(Exception):
    """Ends a call of the second pipeline at its first call of the denoiser."""


def denoiser_of(pipeline: Any) -> nn.Module:
    """Return the network that predicts.

    Raises:
        UnsupportedPipelineError: if there is none, or more than one.
    """
    found = denoisers_of(pipeline)
    if len(found) == 1:
        return found[0]
    raise UnsupportedPipelineError(
        f"expected a pipeline with one unet or transformer, got {type(pipeline).__name__} with {len(found)}; use "
        "another pipeline."
    )


def check_one_space(first: Any, second: Any) -> None:
    """Refuse two pipelines whose predictions cannot be combined, by the name of what differs.

    Args:
        first: the pipeline that runs.
        second: the one whose denoiser is evaluated beside it.

    Raises:
        DifferentModelsError: for other noise levels, prediction types, sample shapes or latent spaces.
    """
    one, other = denoiser_of(first), denoiser_of(second)
    if one is other:
        raise DifferentModelsError(
            f"expected two models, got one {type(one).__name__} in both pipelines; load the guiding pipeline with "
            "networks of its own."
        )
    facts = [(_facts(pipeline)) for pipeline in (first, second)]
    for name in facts[0]:
        if facts[0][name] != facts[1][name]:
            raise DifferentModelsError(
                f"expected two models of one {name}, got {facts[0][name]} and {facts[1][name]}; their noised laws are "
                "different things: use models of one family."
            )
    _check_levels(first, second)
    _check_encoders(first, second)


def _facts(pipeline: Any) -> dict[str, Any]:
    network = getattr(denoiser_of(pipeline), "config", {})
    scheduler = getattr(pipeline.scheduler, "config", {})
    vae = getattr(pipeline, "vae", None)
    space = getattr(vae, "config", {})
    return {
        "prediction_type": scheduler.get("prediction_type", "epsilon"),
        "in_channels": network.get("in_channels"),
        "out_channels": network.get("out_channels"),
        "sample_size": network.get("sample_size"),
        "autoencoder": None if vae is None else type(vae).__name__,
        "scaling_factor of the latents": space.get("scaling_factor"),
        "shift_factor of the latents": space.get("shift_factor"),
        "latent_channels": space.get("latent_channels"),
    }


def _check_levels(first: Any, second: Any) -> None:
    found = [getattr(pipeline.scheduler, "alphas_cumprod", None) for pipeline in (first, second)]
    names = [type(pipeline.scheduler).__name__ for pipeline in (first, second)]
    if found[0] is None or found[1] is None:
        raise DifferentModelsError(
            f"expected schedulers with alphas_cumprod, got {names[0]} and {names[1]}; flow matching and EDM are not "
            "supported here, use Target.product with two ScoreModel experts."
        )
    left, right = (torch.as_tensor(value, dtype=torch.float64) for value in found)
    if left.shape != right.shape or not torch.allclose(left, right, rtol=1e-4, atol=1e-6):
        raise DifferentModelsError(
            f"expected two models on one noise path, got {names[0]} with alpha_bar {float(left[len(left) // 2]):.4g} "
            f"and {names[1]} with {float(right[len(right) // 2]):.4g} at half of their timesteps; use models that were "
            "trained with one noise schedule."
        )


def _check_encoders(first: Any, second: Any) -> None:
    """Compare the encoders, which define the latents; decoders may be tuned as one likes."""
    encoders = [getattr(getattr(pipeline, "vae", None), "encoder", None) for pipeline in (first, second)]
    if not all(isinstance(encoder, nn.Module) for encoder in encoders) or encoders[0] is encoders[1]:
        return
    left, right = (encoder.state_dict() for encoder in encoders)  # type: ignore[union-attr]
    same = left.keys() == right.keys() and all(
        left[name].shape == right[name].shape
        and torch.allclose(left[name].float().cpu(), right[name].float().cpu(), rtol=1e-2, atol=1e-3)
        for name in left
    )
    if not same:
        raise DifferentModelsError(
            "expected two models in one latent space, got autoencoders whose encoders have other weights; use models "
            "that were trained on the latents of one encoder."
        )


class SecondDenoiser:
    """Evaluates another pipeline's denoiser for the samples that a pipeline is about to step.

    What the second denoiser is conditioned on (text embeddings and the like) is taken from a call of its own pipeline,
    which ends at the first call of its denoiser; samples, timesteps and whatever else changes along the run from the
    calls of the first denoiser.

    Args:
        first: the pipeline that runs.
        second: the other.
        max_batch: most rows of one call; None for no limit.

    Attributes:
        rows: rows evaluated so far.
    """

    def __init__(self, first: Any, second: Any, *, max_batch: int | None) -> None:
        check_one_space(first, second)
        self._first, self._second = denoiser_of(first), denoiser_of(second)
        self._pipeline = second
        self._max_batch = max_batch
        self._condition: dict[str, Any] = {}
        self._begun: dict[str, Any] | None = None
        self._last: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self.rows = 0

    def prepare(
        self,
        prompts: Sequence[str],
        num_particles: int,
        generators: Sequence[torch.Generator],
        pipeline_kwargs: Mapping[str, Any],
    ) -> None:
        """Find what the second denoiser is conditioned on; arguments as for `build_call`.

        Raises:
            DifferentModelsError: if the second pipeline conditions the particles of a prompt differently.
        """

        def stop(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            self._condition = kwargs
            raise _CapturedError

        copies = [torch.Generator(device=g.device).manual_seed(number) for number, g in enumerate(generators)]
        arguments = build_call(self._pipeline, prompts, num_particles, copies, pipeline_kwargs)
        with intercept_call(self._second, stop):
            try:
                self._pipeline(**arguments)
            except _CapturedError:
                pass
        for name, value in self._condition.items():
            _check_equal_within(name, value, len(prompts), num_particles)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """See the calls of the first denoiser within the context."""
        with intercept_call(self._first, self._watch):
            yield

    def _watch(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._last = (args, kwargs)
        if self._begun is None:
            self._begun = dict(kwargs)
        return call(*args, **kwargs)

    def predict(self) -> Tensor:
        """Return the second model's prediction for the last call of the first denoiser, of its shape and dtype.

        Raises:
            UnsupportedPipelineError: if there was no call, or the networks are called differently.
        """
        if self._last is None or self._begun is None:
            raise UnsupportedPipelineError(
                "expected a call of the denoiser before a step, got none; use another pipeline."
            )
        args, current = self._last
        # Of the first: what is a sample, a time, or changes along the run. Of the second: its conditions.
        kwargs = dict(self._condition)
        for name, value in current.items():
            if name in kwargs and (name in _OF_THE_RUN or not _equal(value, self._begun.get(name))):
                kwargs[name] = value
        missing = _OF_THE_RUN & current.keys() - kwargs.keys()
        if missing:
            raise UnsupportedPipelineError(
                f"expected denoisers that are called alike, got {sorted(missing)} by name in one only; use "
                "pipelines of one family."
            )
        sample = next(value for value in (*args, *current.values()) if isinstance(value, Tensor) and value.ndim > 1)
        kind = next((p.dtype for p in self._second.parameters() if p.is_floating_point()), sample.dtype)
        args, kwargs = _cast(args, kind), _cast(kwargs, kind)
        rows = rows_of(args, kwargs)
        self.rows += rows
        with torch.no_grad():
            if self._max_batch is None:
                output = self._second(*args, **kwargs)
            else:
                output = call_in_chunks(self._second, args, kwargs, rows=rows, size=self._max_batch)
        found = output if isinstance(output, Tensor) else getattr(output, "sample", None)
        found = output[0] if found is None else found
        assert isinstance(found, Tensor)
        return found.to(sample.dtype)


_OF_THE_RUN = frozenset({"sample", "hidden_states", "x", "timestep"})


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return left.shape == right.shape and torch.equal(left, right)
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(_equal(left[name], right[name]) for name in left)
    return type(left) is type(right) and bool(left == right)


def _cast(value: Any, kind: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(kind) if value.is_floating_point() and value.ndim > 1 else value
    if isinstance(value, dict):
        return {name: _cast(part, kind) for name, part in value.items()}
    return tuple(_cast(part, kind) for part in value) if isinstance(value, tuple) else value


def _check_equal_within(name: str, value: Any, prompts: int, particles: int) -> None:
    """Refuse conditions that differ between the particles of a prompt: they would have to move with them."""
    if isinstance(value, Mapping):
        for inner, part in value.items():
            _check_equal_within(f"{name}.{inner}", part, prompts, particles)
    if name in _OF_THE_RUN or not isinstance(value, Tensor) or value.ndim == 0 or value.shape[0] != prompts * particles:
        return
    groups = value.reshape(prompts, particles, *value.shape[1:])
    if not torch.equal(groups, groups[:, :1].expand_as(groups)):
        raise DifferentModelsError(
            f"expected one {name} for all particles of a prompt in the guiding pipeline, got some that differ; use a "
            "pipeline that is conditioned on the prompt alone."
        )

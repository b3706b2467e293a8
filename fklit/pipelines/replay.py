"""From the samples a scheduler holds to pictures, videos or audio, by the pipeline itself: a copy runs its end only.

Families differ in what they do before `vae.decode`: packed tokens, running means, frames. A shallow copy of the
pipeline is called with the samples as its latents, for one step that changes nothing, with networks that return zeros
and the text embeddings of the run; what comes out is what the pipeline would have made of these samples, bit for bit.
The pipeline itself is not touched.
"""

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from fklit.pipelines.denoisers import DENOISERS
from fklit.pipelines.microbatch import call_in_chunks
from fklit.pipelines.output import samples_of
from fklit.pipelines.seeds import copied_without_noise

_STUBBED = (*DENOISERS, "controlnet")
# Not those of a call of one step: grids, callbacks that would see it, and audio that is added to given latents.
_DROPPED = (
    "sigmas", "timesteps", "callback_on_step_end", "callback", "callback_steps", "initial_audio_waveforms",
    "initial_audio_sampling_rate",
)  # fmt: skip


class ReplayError(ValueError):
    """The pipeline could not turn samples into pictures by itself."""


class PipelineReplay:
    """Decodes the samples of one run of a pipeline by the end of its own call.

    Args:
        pipeline: a diffusers pipeline.

    Attributes:
        arguments: keyword arguments of the call that is running; None until they are known.
    """

    def __init__(self, pipeline: Any) -> None:
        self.arguments: Mapping[str, Any] | None = None
        self._pipeline = pipeline
        self._encoded: list[Any] = []

    def recording(self) -> AbstractContextManager[None]:
        """Remember within the context what the pipeline's `encode_prompt` returns."""
        return self._recorded() if hasattr(self._pipeline, "encode_prompt") else nullcontext()

    @contextmanager
    def _recorded(self) -> Iterator[None]:
        pipeline, original = self._pipeline, self._pipeline.encode_prompt
        own = pipeline.__dict__.get("encode_prompt")

        def encode_prompt(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            self._encoded.append(result)
            return result

        pipeline.__dict__["encode_prompt"] = encode_prompt
        try:
            yield
        finally:
            if own is None:
                pipeline.__dict__.pop("encode_prompt", None)
            else:
                pipeline.__dict__["encode_prompt"] = own

    def decode(self, samples: Tensor, *, at_once: int | None = None, gradient: bool = False) -> Any:
        """Return pictures (N, 3, H, W), or videos (N, F, 3, H, W), in [0, 1], or audio, as the pipeline returns it.

        Args:
            samples: as the scheduler holds them, one row a sample of the call.
            at_once: most samples given to the decoder at once; None for all.
            gradient: whether gradients go through, as the current mode has it; none do without.

        Raises:
            ReplayError: the arguments of the call are not known, or the copy failed.
        """
        name = type(self._pipeline).__name__
        if self.arguments is None:
            raise ReplayError(
                f"{name} steps samples of shape {tuple(samples.shape)}, which it can decode only where fklit knows the "
                "arguments of its call; call it with run.call_arguments(), or pass decode=, a function from latents to "
                "images in [0, 1]."
            )
        try:
            twin = self._copy(samples.shape[0], at_once)
            # Pipelines' calls switch gradients off by a decorator, under which the function itself lies.
            run = functools.partial(inspect.unwrap(type(twin).__call__), twin) if gradient else twin
            with nullcontext() if gradient else torch.no_grad():
                output = run(**self._call(samples))
        except Exception as error:
            raise ReplayError(
                f"{name} could not decode samples of shape {tuple(samples.shape)} by its own call "
                f"({type(error).__name__}: {error}); pass decode=, a function from latents to images in [0, 1]."
            ) from error
        found = samples_of(output)
        if found is None or len(found) != samples.shape[0]:
            raise ReplayError(
                f"expected {samples.shape[0]} samples from {name}, got a {type(found).__name__}; pass decode=, a "
                "function from latents to samples."
            )
        return found.float() if isinstance(found, Tensor) else found

    def _call(self, samples: Tensor) -> dict[str, Any]:
        given = {key: copied(value) for key, value in (self.arguments or {}).items() if key not in _DROPPED}
        given |= {
            "latents": self._as_latents(samples, given),
            "num_inference_steps": 2 if self._named("Mochi") else 1,  # whose grid has no single step
            "output_type": "pt",
            "return_dict": True,
        }
        if self._named("AnimateDiffVideoToVideo", "CogVideoXVideoToVideo", "WanVideoToVideo"):
            given["video"] = None  # they take one or the other
        if "generator" in given:  # the run's own go on undisturbed
            count = len(given["generator"]) if isinstance(given["generator"], list) else 1
            given["generator"] = [torch.Generator().manual_seed(0) for _ in range(count)]
        if "strength" in given:
            given["strength"] = 1.0  # else a call of one step would have none
        return given

    def _named(self, *starts: str) -> bool:
        return type(self._pipeline).__name__.startswith(starts)

    def _as_latents(self, samples: Tensor, given: Mapping[str, Any]) -> Tensor:
        """Samples as the pipeline takes latents: as it holds them, but for Flux 2 and 3, which pack them themselves."""
        if self._named("SanaImageToVideo"):  # steps all frames but the first, which is the picture
            return torch.cat([torch.zeros_like(samples[:, :, :1]), samples], dim=2)
        if not self._named("Flux2", "Flux3") or samples.ndim != 3:
            return samples
        size = getattr(self._pipeline, "default_sample_size", 128) * self._pipeline.vae_scale_factor
        patch = 2 * self._pipeline.vae_scale_factor
        rows, columns = ((given.get(name) or size) // patch for name in ("height", "width"))
        return samples.permute(0, 2, 1).reshape(samples.shape[0], samples.shape[2], rows, columns)

    def _copy(self, rows: int, at_once: int | None) -> Any:
        # Entries of __dict__ are set, not attributes: diffusers writes those of components into a shared config.
        twin = copy.copy(self._pipeline)
        scheduler = copied_without_noise(self._pipeline.scheduler)
        scheduler.__dict__["step"] = _staying(type(scheduler))
        # Pipelines multiply latents that they are given by the scale of the first noise; these are no noise.
        if hasattr(scheduler, "init_noise_sigma"):
            kind = type(scheduler)
            scheduler.__class__ = type(kind.__name__, (kind,), {"init_noise_sigma": _Unscaled()})
        replaced: dict[str, Any] = {"scheduler": scheduler, "maybe_free_model_hooks": lambda: None}
        for name in _STUBBED:
            network = getattr(self._pipeline, name, None)
            if isinstance(network, nn.Module):
                replaced[name] = _Zeros(network)
        if at_once is not None and hasattr(getattr(self._pipeline, "vae", None), "decode"):
            replaced["vae"] = _Chunked(self._pipeline.vae, rows, at_once)
        if self._named("HunyuanVideoImageToVideo"):
            replaced["prepare_latents"] = functools.partial(_unmixed, self._pipeline.prepare_latents)
        if self._encoded:
            encoded = iter(self._encoded)
            replaced["encode_prompt"] = lambda *args, **kwargs: copied(next(encoded))
        replaced["_progress_bar_config"] = {"disable": True}
        twin.__dict__.update(replaced)
        return twin


def _unmixed(prepare: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """Latents as given and those of the picture, for a pipeline that mixes a thousandth of these into the former."""
    bound = inspect.signature(prepare).bind(*args, **kwargs)
    latents = bound.arguments["latents"]
    bound.arguments["latents"] = None
    drawn, picture = prepare(*bound.args, **bound.kwargs)
    whole = latents.shape == drawn.shape  # else all frames but the first, which is the picture
    return latents if whole else torch.cat([picture[:, :, :1], latents], dim=2), picture


class _Unscaled:
    """A scale of 1 in place of a property, or of an attribute, which it takes and forgets."""

    def __get__(self, scheduler: Any, kind: Any = None) -> float:
        return 1.0

    def __set__(self, scheduler: Any, value: Any) -> None:
        pass


class _Stayed(tuple[Tensor, ...]):
    @property
    def prev_sample(self) -> Tensor:
        return self[0]


def _staying(scheduler: Any) -> Any:
    """A step that returns the sample, under the signature of a scheduler's class."""
    signature = inspect.signature(scheduler.step)

    def step(*args: Any, **kwargs: Any) -> _Stayed:
        sample = signature.bind(None, *args, **kwargs).arguments["sample"]
        return _Stayed((sample, sample))  # the solver of CogVideoX returns the denoised prediction, too

    step.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]
    return step


class _Zeros:
    """A network that predicts zeros of the shape of its samples; all else is the network's own."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # pipelines check what they were given by isinstance
        return type(self._network)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        named = (kwargs[name] for name in ("hidden_states", "sample", "x") if name in kwargs)
        samples = next(named, args[0] if args else None)
        if isinstance(samples, list):
            return _Stayed(([torch.zeros_like(sample) for sample in samples],))  # type: ignore[arg-type]
        assert isinstance(samples, Tensor)
        zeros, sound = torch.zeros_like(samples), kwargs.get("audio_hidden_states")
        if sound is not None:
            return _Predicted((zeros, torch.zeros_like(sound)))
        # ControlNets return two kinds of residuals, of which some pipelines take the first; none is used.
        return _Predicted((zeros, zeros) if "controlnet_cond" in kwargs else (zeros,))


class _Chunked:
    """An autoencoder that decodes one row a sample in chunks; all else is its own."""

    def __init__(self, vae: Any, rows: int, size: int) -> None:
        self._vae, self._rows, self._size = vae, rows, size

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # Sana-Video normalizes by the class of its autoencoder
        return type(self._vae)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vae, name)

    def decode(self, z: Tensor, *args: Any, **kwargs: Any) -> Any:
        if z.shape[0] != self._rows:  # frames, which the pipeline itself decodes in chunks
            return self._vae.decode(z, *args, **kwargs)
        return call_in_chunks(self._vae.decode, (z, *args), kwargs, rows=self._rows, size=self._size)


class _Predicted(tuple[Tensor, ...]):
    @property
    def sample(self) -> Tensor:
        return self[0]


def copied(value: Any) -> Any:
    """Return a copy of lists and tuples of anything: pipelines edit lists in place (Z-Image its prompts)."""
    if isinstance(value, list):
        return [copied(item) for item in value]
    if type(value) is tuple:
        return tuple(copied(item) for item in value)
    return value

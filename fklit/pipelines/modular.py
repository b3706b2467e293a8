"""A modular pipeline of diffusers as fklit calls pipelines: named arguments in, images, frames or audio out.

A `ModularPipeline` runs blocks that share a state: some encode prompts and pictures, one prepares and denoises, some
decode. Its inputs are those of its blocks, its scheduler and networks are components that the blocks look up. The
adapter gives all of this the interface of a `DiffusionPipeline`, so that steering and correctors need to know nothing
of blocks.
"""

import copy
import inspect
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch

from fklit.pipelines.decode import restore_attribute
from fklit.pipelines.interception import UnsupportedPipelineError

_OUTPUTS = {"images": "images", "videos": "frames", "audios": "audios"}
_GUIDERS = ("guider", "guider_2")
_NEEDED = ("unet", "transformer", "vae", "scheduler")
_PRIVATE = ("_modular", "_own_blocks", "_output", "_guider_has_scale")


def is_modular(pipeline: Any) -> bool:
    """Return whether a pipeline is a `ModularPipeline` of diffusers, found without importing diffusers."""
    return any(base.__name__ == "ModularPipeline" for base in type(pipeline).__mro__)


def as_pipeline(pipeline: Any) -> Any:
    """Return a pipeline that fklit can call: an adapter for a modular one, any other as it is."""
    return ModularAdapter(pipeline) if is_modular(pipeline) else pipeline


class ModularAdapter:
    """Calls a modular pipeline as if it were a `DiffusionPipeline`.

    ```python
    pipeline = ModularAdapter(modular_pipeline)
    images = pipeline(prompt="a cat", num_inference_steps=20, output_type="pt").images
    ```

    Its arguments are the inputs of the blocks, and `guidance_scale` where the blocks leave guidance to a
    `ClassifierFreeGuidance`, whose scale it sets for the call. The modular pipeline itself is never changed: blocks get
    a shallow copy, in which the attributes of the adapter stand in for the components of the same names.

    Args:
        modular: a `ModularPipeline` with all components that its blocks need.

    Raises:
        UnsupportedPipelineError: the blocks give neither images, nor videos, nor audio, have no scheduler, or miss
            components.
    """

    runs_blocks = True

    def __new__(cls, modular: Any) -> "ModularAdapter":
        """Make an instance of a class of its own, whose call has the inputs of the blocks as its signature."""

        def call(self: ModularAdapter, **given: Any) -> SimpleNamespace | tuple[Any]:
            return self._run(given)

        call.__signature__ = inspect.Signature(_parameters(modular))  # type: ignore[attr-defined]
        named = type(type(modular).__name__, (cls,), {"__call__": call, "__module__": cls.__module__})
        return object.__new__(named)

    def __init__(self, modular: Any) -> None:
        blocks = modular.blocks  # a copy
        outputs = {output.name for output in blocks.outputs}
        found = next((name for name in _OUTPUTS if name in outputs), None)
        if found is None:
            raise UnsupportedPipelineError(
                f"expected blocks that give one of {', '.join(_OUTPUTS)}, got {type(modular).__name__} with "
                f"{', '.join(sorted(outputs)) or 'nothing'}; use blocks that end with a decoder."
            )
        if "scheduler" not in modular.component_names:
            raise UnsupportedPipelineError(
                f"expected blocks that step by a scheduler, got {type(modular).__name__}, of whose "
                "steps fklit sees none; draw many samples and choose among them."
            )
        missing = [name for name in _NEEDED if name in modular.component_names and getattr(modular, name, None) is None]
        if missing:
            raise UnsupportedPipelineError(
                f"expected a modular pipeline whose components are loaded, got {type(modular).__name__} without "
                f"{', '.join(missing)}; call its load_components(), or update_components() with yours."
            )
        self._modular = modular
        self._own_blocks = blocks
        self._output = found
        self._guider_has_scale = "guidance_scale" not in _inputs(blocks)

    def __copy__(self) -> "ModularAdapter":
        twin: ModularAdapter = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in _PRIVATE:
            raise AttributeError(name)
        return getattr(self._modular, name)

    def encode_prompt(self, state: Any) -> tuple[dict[str, Any], dict[str, list[str]]]:
        """Run the blocks before the one that steps, on a `PipelineState`.

        Returns:
            What they changed of the values of the state, and its groups of names.
        """
        before = dict(state.values)
        twin = self._twin()
        with torch.no_grad():
            for block in self._blocks()[0]:
                _, state = block(twin, state)
        missing = object()
        changed = {name: value for name, value in state.values.items() if before.get(name, missing) is not value}
        return changed, {kind: list(names) for kind, names in state.kwargs_mapping.items()}

    def _run(self, given: Mapping[str, Any]) -> SimpleNamespace | tuple[Any]:
        unknown = given.keys() - inspect.signature(type(self).__call__).parameters.keys()
        if unknown:
            raise TypeError(
                f"expected inputs of the blocks of {type(self).__name__}, got {', '.join(sorted(unknown))}; omit them."
            )
        scale = given.get("guidance_scale") if self._guider_has_scale else None
        changed, groups = self.encode_prompt(self._state(given))
        state = self._state(given)
        state.values.update(changed)
        state.kwargs_mapping.update({kind: list(names) for kind, names in groups.items()})
        twin = self._twin(scale)
        hidden = self.__dict__.get("_progress_bar_config", {}).get("disable", False)
        with torch.no_grad(), _without_bars(self._own_blocks) if hidden else nullcontext():
            for block in self._blocks()[1]:
                _, state = block(twin, state)
        samples = state.get(self._output)
        if not given.get("return_dict", True):
            return (samples,)
        return SimpleNamespace(**{_OUTPUTS[self._output]: samples, "audio": state.get("audio")})

    def _state(self, given: Mapping[str, Any]) -> Any:
        """The inputs as the blocks get them, with their defaults where nothing is given."""
        from diffusers.modular_pipelines import PipelineState

        state = PipelineState()
        for item in self._own_blocks.inputs:
            if item.name is not None:
                state.set(item.name, given.get(item.name, item.default), item.kwargs_type)
        return state

    def _blocks(self) -> tuple[list[Any], list[Any]]:
        """The blocks before the first that has a scheduler, and the others."""
        blocks = self._own_blocks
        if type(blocks).__call__ is not _sequential().__call__:
            return [], [blocks]  # a single block, or one that chooses
        parts = list(blocks.sub_blocks.values())
        steps = [any(spec.name == "scheduler" for spec in part.expected_components) for part in parts]
        first = steps.index(True) if True in steps else 0
        return parts[:first], parts[first:]

    def _twin(self, scale: float | None = None) -> Any:
        """The pipeline as its blocks see it in a call: with what stands in for components, and guiders of its own."""
        twin = copy.copy(self._modular)
        own = {name: value for name, value in self.__dict__.items() if name not in _PRIVATE}
        # Entries of __dict__ are set, not attributes: diffusers writes those of components into a shared config.
        twin.__dict__.update(own)
        for name in _GUIDERS:
            guider = getattr(twin, name, None)
            if guider is not None:
                guider = copy.deepcopy(guider)  # it counts its steps
                if scale is not None:
                    guider.guidance_scale = scale
                twin.__dict__[name] = guider
        return twin


@contextmanager
def _without_bars(block: Any) -> Iterator[None]:
    """Hide the progress bars of all loops within a block, which keep their settings for themselves."""
    with ExitStack() as stack:
        if hasattr(block, "progress_bar"):
            own = block.__dict__.get("_progress_bar_config")
            block._progress_bar_config = {**(own or {}), "disable": True}
            stack.callback(restore_attribute, block, "_progress_bar_config", own)
        for part in (block.sub_blocks or {}).values():
            stack.enter_context(_without_bars(part))
        yield


def _sequential() -> Any:
    from diffusers.modular_pipelines import SequentialPipelineBlocks

    return SequentialPipelineBlocks


def _inputs(blocks: Any) -> dict[str, Any]:
    return {item.name: item.default for item in blocks.inputs if item.name is not None}


def _parameters(modular: Any) -> list[inspect.Parameter]:
    """The arguments of a call, the instance first."""
    inputs = _inputs(modular.blocks)
    guider = getattr(modular, "guider", None)
    if "guidance_scale" not in inputs and type(guider).__name__ == "ClassifierFreeGuidance":
        inputs["guidance_scale"] = guider.guidance_scale  # type: ignore[union-attr]
    keyword = inspect.Parameter.KEYWORD_ONLY
    named = [inspect.Parameter(name, keyword, default=default) for name, default in inputs.items()]
    named.append(inspect.Parameter("return_dict", keyword, default=True))
    return [inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY), *named]

"""Any Python callable as a reward."""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from fklit.checks import check_choice
from fklit.rewards.base import Metadata, Reward
from fklit.rewards.returned import as_scores
from fklit.rewards.signature import RewardSignature, read_signature

ImageForm = Literal["float", "uint8", "pil"]


class Function(Reward):
    """Wraps a Python function, a callable object, or the name of one.

    The callable takes `(samples)`, `(samples, prompts)`, `(samples, prompts=None)` or `(samples, prompts, metadata)`,
    in which metadata holds one dictionary a sample, with whatever the data module knows about its prompt. Samples are
    what the pipeline makes: images (n, C, H, W) or videos (n, F, C, H, W) in [0, 1] on the device of the reward (see
    `images`), waveforms (n, C, T), or a list of texts or protein designs. A callable that is an `nn.Module`
    becomes a part of the reward: it moves with it, is frozen, and is put in evaluation mode.

    It returns one number a sample, higher is better: a tensor or NumPy array (n,) or (n, 1), or a list of n numbers, in
    which None stands for a sample that could not be scored and becomes NaN (see `on_nan` of the method). For one sample
    (`max_batch=1`) a bare number will do. Of a pair `(scores, info)` the info is dropped. An `async def` is awaited.

    ```python
    redness = Function(lambda images: images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3)))
    ```

    In YAML a name is given, `module:attribute` or `module.attribute`; if it names a class, the class is
    instantiated with `init_args` first:

    ```yaml
    class_path: fklit.rewards.Function
    init_args: {fn: "my_rewards:redness", suggested_scale: 20.0}
    ```

    Args:
        fn: The callable, or its name. A name is imported when the reward is loaded.
        init_args: Arguments for a named class; None for a function or an object.
        images: How images and videos are passed: "float" (a tensor in [0, 1]), "uint8" (a tensor of bytes of the same
            shape) or "pil" (a list of n PIL images; of videos, n lists of F). Gradients reach the samples through
            "float" only.
        pass_prompts: Whether prompts are passed (and metadata is not); None decides from the signature.
        typical_range: Range of the values, for the record; it is not enforced.
        suggested_scale: A `reward_scale` to start from, for the record.
        max_batch: Most samples a call; None for no limit.
        pad: Fill the last micro-batch (see `Reward`). The callable then scores the repeated samples, too.

    Raises:
        ValueError: `fn` is neither callable nor a name, or `init_args` are given for a callable.
    """

    uses_metadata = True  # handed to the callable if its signature asks for it
    accepts = "any"
    needs_prompts = False

    def __init__(
        self,
        fn: str | Callable[..., Any],
        init_args: Mapping[str, Any] | None = None,
        *,
        images: ImageForm = "float",
        pass_prompts: bool | None = None,
        typical_range: tuple[float, float] | None = None,
        suggested_scale: float | None = None,
        max_batch: int | None = None,
        pad: bool = False,
    ) -> None:
        super().__init__(max_batch=max_batch, pad=pad)
        if isinstance(fn, str):
            if not any(0 < fn.find(sign) < len(fn) - 1 for sign in ":."):
                raise ValueError(f"expected a function or its name, got fn={fn!r}; name it as 'module:attribute'.")
        elif not callable(fn):
            raise ValueError(f"expected a callable or a name, got fn of type {type(fn).__name__}; give one of these.")
        elif init_args is not None:
            raise ValueError("expected init_args with the name of a class only, got them with a callable; omit them.")
        check_choice("images", images, ("float", "uint8", "pil"))
        self.fn = fn
        self.images = images
        self.init_args = init_args
        self.pass_prompts = pass_prompts
        self.typical_range = typical_range
        self.suggested_scale = suggested_scale
        self._call: Callable[..., Any] | None = None
        self._signature = RewardSignature()

    @property
    def display_name(self) -> str:
        """The function's module and name."""
        if isinstance(self.fn, str):
            return self.fn.replace(":", ".")
        function = self.fn
        while isinstance(function, functools.partial):
            function = function.func
        named: Any = function if hasattr(function, "__qualname__") else type(function)
        return f"{named.__module__}.{named.__qualname__}"

    def build(self) -> None:
        """Imports a named function and reads the signature.

        Raises:
            ValueError: The name cannot be imported, `init_args` do not fit, or the function requires other arguments.
        """
        call = _import(self.fn) if isinstance(self.fn, str) else self.fn
        if inspect.isclass(call):
            try:
                call = call(**(self.init_args or {}))
            except TypeError as error:
                raise ValueError(
                    f"expected init_args of the class {self.fn!r}, got {self.init_args!r} ({error}); fix them."
                ) from error
        elif self.init_args is not None:
            raise ValueError(f"expected the name of a class with init_args, got {self.fn!r}; omit init_args.")
        if not callable(call):
            raise ValueError(
                f"expected the name of a function or class, got {self.fn!r}, a {type(call).__name__}; name another."
            )
        self._call = call
        self._signature = read_signature(call, self.display_name, self.pass_prompts)

    def score(self, samples: Any, prompts: Sequence[str], metadata: Metadata | None = None) -> Tensor:
        """Calls the function; see the class."""
        assert self._call is not None
        known = [{"prompt": prompt} for prompt in prompts] if metadata is None else metadata
        returned = self._signature.call(self._call, _in_form(samples, self.images), prompts, known)
        return as_scores(returned, len(prompts), self.display_name)


def _in_form(samples: Any, form: ImageForm) -> Any:
    if form == "float":
        return samples
    if not isinstance(samples, Tensor) or samples.ndim not in (4, 5) or not samples.is_floating_point():
        kind = f"a tensor {tuple(samples.shape)}" if isinstance(samples, Tensor) else f"a {type(samples).__name__}"
        raise ValueError(
            f"images={form!r} expected float images (n, C, H, W) or videos (n, F, C, H, W), got {kind}; use "
            "images='float'"
        )
    # Nothing can hold NaN in a byte; such samples never get here with on_nan="error", and score NaN with "drop".
    pixels = (samples.detach().nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8)
    if form == "uint8":
        return pixels
    return [_pil(video) for video in pixels] if pixels.ndim == 5 else _pil(pixels)


def _pil(pixels: Tensor) -> list[Any]:
    """PIL images of bytes (n, C, H, W)."""
    from PIL import Image

    arrays = pixels.permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array) for array in arrays]


def _import(name: str) -> Any:
    module_name, _, attribute = name.partition(":") if ":" in name else name.rpartition(".")
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"expected an importable function, got fn={name!r} ({error}); name it as 'module:attribute'."
        ) from error
    return found

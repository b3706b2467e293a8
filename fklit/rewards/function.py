"""Any Python callable as a reward."""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fklit.rewards.base import Reward


class Function(Reward):
    """Wraps a Python function, a callable object, or the name of one.

    The callable gets `(samples, prompts)` if it takes two or more positional arguments and `(samples)` otherwise.
    It returns one number a sample: a tensor (n,), a NumPy array (n,) or a list of n numbers. Samples are what the
    pipeline makes: images (n, C, H, W) in [0, 1] on the device of the reward, or a list of texts. A callable that is an
    `nn.Module` becomes a part of the reward: it moves with it, is frozen, and is put in evaluation mode.

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
        pass_prompts: Whether prompts are passed; None decides from the signature.
        typical_range: Range of the values, for the record; it is not enforced.
        suggested_scale: A `reward_scale` to start from, for the record.
        max_batch: Most samples a call; None for no limit.
        pad: Fill the last micro-batch (see `Reward`). The callable then scores the repeated samples, too.

    Raises:
        ValueError: `fn` is neither callable nor a name, or `init_args` are given for a callable.
    """

    accepts = "any"
    needs_prompts = False

    def __init__(
        self,
        fn: str | Callable[..., Any],
        init_args: Mapping[str, Any] | None = None,
        *,
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
        self.fn = fn
        self.init_args = init_args
        self.pass_prompts = pass_prompts
        self.typical_range = typical_range
        self.suggested_scale = suggested_scale
        self._call: Callable[..., Any] | None = None
        self._two_arguments = False

    def build(self) -> None:
        """Imports a named function and reads the signature.

        Raises:
            ValueError: The name cannot be imported, or `init_args` do not fit.
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
        self._two_arguments = _takes_two(call) if self.pass_prompts is None else self.pass_prompts

    def score(self, samples: Any, prompts: Sequence[str]) -> Tensor:
        """Calls the function; see the class."""
        assert self._call is not None
        scores = self._call(samples, list(prompts)) if self._two_arguments else self._call(samples)
        return scores if isinstance(scores, Tensor) else torch.as_tensor(scores)


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


def _takes_two(call: Callable[..., Any]) -> bool:
    try:
        # The __call__ of a module takes anything; its forward says what it wants.
        parameters = inspect.signature(call.forward if isinstance(call, nn.Module) else call).parameters.values()
    except (TypeError, ValueError):  # some builtins have no signature
        return False
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return True
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty for p in parameters) >= 2

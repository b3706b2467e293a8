"""What a function that somebody wrote as a reward wants to be called with, read from its signature."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

Argument = Literal["prompts", "metadata"]

_NAMES: dict[str, Argument] = {
    **dict.fromkeys(("prompt", "prompts", "caption", "captions", "text", "texts"), "prompts"),
    **dict.fromkeys(("metadata", "metadatas", "meta"), "metadata"),
}


@dataclass(frozen=True)
class RewardSignature:
    """The arguments beside the samples, which come first.

    Attributes:
        positional: what follows the samples, in order.
        by_name: what is passed by name, under the function's own name for it.
    """

    positional: tuple[Argument, ...] = ()
    by_name: tuple[tuple[str, Argument], ...] = ()

    @property
    def uses_metadata(self) -> bool:
        """Whether metadata is passed."""
        return "metadata" in self.positional or "metadata" in dict(self.by_name).values()

    def call(
        self, function: Callable[..., Any], samples: Any, prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]]
    ) -> Any:
        """Call the function with lists of its own."""
        values = {"prompts": list(prompts), "metadata": list(metadata)}
        named = {name: values[argument] for name, argument in self.by_name}
        return function(samples, *[values[argument] for argument in self.positional], **named)


def read_signature(function: Callable[..., Any], name: str, pass_prompts: bool | None = None) -> RewardSignature:
    """Return what to call a function of `(samples)`, `(samples, prompts)` or `(samples, prompts, metadata)` with.

    Required arguments get prompts and metadata in this order, whatever their names; arguments with a default do if
    they have the usual names (`prompt`, `prompts`, `captions`, `metadata`, ...), and keep it otherwise.

    Args:
        function: the callable.
        name: what errors call it.
        pass_prompts: whether prompts, and nothing else, are passed second, or samples alone; None reads the signature.

    Raises:
        ValueError: if it requires something else.
    """
    if pass_prompts is not None:
        return RewardSignature(("prompts",) if pass_prompts else ())
    try:
        # The __call__ of a module takes anything; its forward says what it wants.
        target = function.forward if isinstance(function, nn.Module) else function
        parameters = list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):  # some builtins have no signature
        return RewardSignature()
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return RewardSignature(("prompts",))
    places = [item for item in parameters if item.kind in (item.POSITIONAL_ONLY, item.POSITIONAL_OR_KEYWORD)]
    if not places:
        raise ValueError(f"expected a function of (samples, prompts), got {name}, which takes no samples; add them.")
    positional: list[Argument] = []
    by_name: list[tuple[str, Argument]] = []
    left: list[Argument] = ["prompts", "metadata"]
    for place, item in enumerate((*places[1:], *(p for p in parameters if p.kind is p.KEYWORD_ONLY)), start=1):
        required = item.default is item.empty
        argument = _NAMES.get(item.name)
        if argument is None and required and left and item.kind is not item.KEYWORD_ONLY:
            argument = left[0]
        if argument not in left:
            if required:
                raise ValueError(
                    "expected a function of (samples), (samples, prompts) or (samples, prompts, metadata), got "
                    f"{name}, which also requires {item.name!r}; give it a default, or bind it with functools.partial."
                )
            continue
        left.remove(argument)
        if item.kind is not item.KEYWORD_ONLY and place == len(positional) + 1:
            positional.append(argument)
        else:
            by_name.append((item.name, argument))
    return RewardSignature(tuple(positional), tuple(by_name))

"""`scheduler.step` while it is intercepted, which knows when a pipeline steps a copy of the scheduler."""

import functools
from collections.abc import Callable
from typing import Any, NoReturn


class InterceptedStep:
    """Stands in front of a scheduler's `step`, as an attribute of the scheduler itself.

    A deep copy of the scheduler would keep it, bound to the original: a pipeline that gives each frame, or the sound,
    a copy of its own would then step all of them by one history. The copy gets the step of its class instead, which is
    not seen; where every step must be seen, stepping the copy is refused.

    Args:
        scheduler: whose step this is.
        step: takes its place.
        refuse: raises the error for a step of a copy; None lets copies step by themselves.
    """

    def __init__(self, scheduler: Any, step: Callable[..., Any], refuse: Callable[[], NoReturn] | None) -> None:
        functools.update_wrapper(self, step)  # pipelines read the signature to decide whether to send eta
        self._scheduler, self._step, self._refuse = scheduler, step, refuse

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Step."""
        return self._step(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Return the step of the copy that is being made."""
        duplicate = memo.get(id(self._scheduler))
        if duplicate is None:
            return self
        refuse = self._refuse
        if refuse is None:
            return functools.partial(type(duplicate).step, duplicate)

        def step(*args: Any, **kwargs: Any) -> Any:
            refuse()

        return functools.wraps(self._step)(step)

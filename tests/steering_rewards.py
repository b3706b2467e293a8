"""Rewards that configurations name by path, for tests of the command line."""

import os
import signal


def redness(images):
    """Red above the other colors, (n,)."""
    return images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3))


def redness_until_killed(images, prompts):
    """As above; kills the process, as the system would, at the prompt that KILL_AT names."""
    if os.environ.get("KILL_AT") in prompts:
        os.kill(os.getpid(), signal.SIGKILL)
    return redness(images)


def broken(images):
    """A bug in a user's reward."""
    return undefined_name  # noqa: F821

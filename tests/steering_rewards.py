"""Rewards and a proposal that configurations name by path, for tests of the command line."""

import os
import signal

import torch

from fklit.text import TiltedProposal


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


def count_a_until_killed(texts, prompts):
    """How often the letter a comes, (n,); kills the process, as the system would, at the prompt of KILL_AT."""
    if os.environ.get("KILL_AT") in prompts:
        os.kill(os.getpid(), signal.SIGKILL)
    return [float(text.count("a")) for text in texts]


def count_carbon_until_killed(smiles, prompts):
    """The same of carbon atoms."""
    return count_a_until_killed([text.upper().replace("C", "a") for text in smiles], prompts)


class TwiceAsLikely(TiltedProposal):
    """A proposal that takes one token twice as often, by class path."""

    def __init__(self, token: int) -> None:
        self.token = token
        super().__init__(self._favor)

    def _favor(self, tokens, log_probs):
        return torch.log(1.0 + (torch.arange(log_probs.shape[-1]) == self.token).double())

"""Ways to steer that `benchmarks/beyond.py` compares: each is a set of arguments of `fklit.steer`."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fklit.feynman_kac.schedule import Schedule
from fklit.feynman_kac.tempering import Adaptive, Geometric, Linear
from fklit.pipelines.tiny_decoder import TinyDecoder
from fklit.rewards import LatentImageReward
from fklit.sampling.look_ahead import LookAhead
from fklit.steering.calibration import Calibrated
from fklit.steering.fewer_particles import FewerParticles
from fklit.steering.gradient_proposal import GradientProposal
from fklit.steering.search import SVDD, CoDe, SequentialBestOfN

CALIBRATION = Path(__file__).parents[1] / "configs" / "steering" / "emoji_calibration.json"  # of tuning prompts
TINY = TinyDecoder("fklit:emoji_tiny_autoencoder")
LATENT = "fklit:emoji_latent_reward"
GOOD = math.log(0.9)  # a score that counts as good: P(the picture shows the prompt) of 0.9

EVERY_SECOND, EVERY = Schedule(every=2), Schedule()
KNOWN = Schedule(indices=(3, 4, 6, 7, 9, 10, 12, 13, 15, 16, 18, 19, 21, 22, 24, 25, 27))  # of the calibration, of 30

Settings = dict[str, Any]
OF_WEIGHTS = ("potential", "reward_schedule", "ess_threshold", "tempering")


def _cheap() -> Settings:
    return {"preview_decoder": TINY, "stop_scoring_above": GOOD}


def _search(search: Any, usual: Settings) -> Settings:
    """A search chooses its steps and has no weights, so it refuses their settings."""
    return {name: value for name, value in usual.items() if name not in OF_WEIGHTS} | {"search": search}


METHODS: dict[str, Callable[[int, Settings], Settings]] = {
    "": lambda k, usual: usual,
    # Draws from the target: what a score is worth at the end, resampled whenever weights differ.
    "calibrated": lambda k, usual: usual | {"potential": Calibrated(CALIBRATION), "ess_threshold": 1.0},
    "max": lambda k, usual: usual | {"potential": "max"},
    # Fewer or cheaper scores.
    "three scores": lambda k, usual: usual | {"reward_schedule": Schedule(indices=(0.3, 0.4, 0.6))},
    "early stop": lambda k, usual: usual | {"stop_scoring_above": GOOD},
    "tiny decoder": lambda k, usual: usual | {"preview_decoder": TINY},
    "tiny decoder, early stop": lambda k, usual: usual | {"preview_decoder": TINY, "stop_scoring_above": GOOD},
    # A prompt whose particles are all good goes on with one or two of them.
    "one particle": lambda k, usual: usual | {"preview_decoder": TINY, "fewer_particles": FewerParticles(above=GOOD)},
    "one particle, above .98": lambda k, usual: (
        usual | {"preview_decoder": TINY, "fewer_particles": FewerParticles(above=math.log(0.98))}
    ),
    "two particles": lambda k, usual: (
        usual | {"preview_decoder": TINY, "fewer_particles": FewerParticles(above=GOOD, number=2)}
    ),
    "tiny decoder, early stop, four scores": lambda k, usual: (
        usual
        | {"preview_decoder": TINY, "stop_scoring_above": GOOD}
        | {"reward_schedule": Schedule(indices=(0.2, 0.3, 0.4, 0.6))}
    ),
    # More scores, which a cheap decoder pays for, and resampling at each of them whatever the weights are.
    "tiny decoder, early stop, 15 scores": lambda k, usual: usual | _cheap() | {"reward_schedule": EVERY_SECOND},
    "tiny decoder, early stop, 15 scores, always": lambda k, usual: (
        usual | _cheap() | {"reward_schedule": EVERY_SECOND, "ess_threshold": 1.0}
    ),
    "tiny decoder, early stop, all scores": lambda k, usual: usual | _cheap() | {"reward_schedule": EVERY},
    "tiny decoder, early stop, all scores, always": lambda k, usual: (
        usual | _cheap() | {"reward_schedule": EVERY, "ess_threshold": 1.0}
    ),
    "early stop, 15 scores, always": lambda k, usual: (
        usual | {"stop_scoring_above": GOOD, "reward_schedule": EVERY_SECOND, "ess_threshold": 1.0}
    ),
    "early stop, all scores, always": lambda k, usual: (
        usual | {"stop_scoring_above": GOOD, "reward_schedule": EVERY, "ess_threshold": 1.0}
    ),
    # Scores also of prompts whose particles are all good, as a search has.
    "15 scores, always": lambda k, usual: usual | {"reward_schedule": EVERY_SECOND, "ess_threshold": 1.0},
    "all scores, always": lambda k, usual: usual | {"reward_schedule": EVERY, "ess_threshold": 1.0},
    "tiny decoder, 15 scores, always": lambda k, usual: (
        usual | {"preview_decoder": TINY, "reward_schedule": EVERY_SECOND, "ess_threshold": 1.0}
    ),
    "calibrated, tiny decoder, early stop": lambda k, usual: (
        usual | _cheap() | {"potential": Calibrated(CALIBRATION), "ess_threshold": 1.0}
    ),
    "calibrated, tiny decoder, early stop, 17 scores": lambda k, usual: (
        usual | _cheap() | {"potential": Calibrated(CALIBRATION), "ess_threshold": 1.0, "reward_schedule": KNOWN}
    ),
    # Clean samples drawn from each particle by one more evaluation of the denoiser each, in place of its prediction.
    "look-ahead": lambda k, usual: usual | {"look_ahead": LookAhead(num_samples=2, num_steps=2)},
    "tiny decoder, look-ahead": lambda k, usual: (
        usual | {"preview_decoder": TINY, "look_ahead": LookAhead(num_samples=2, num_steps=2)}
    ),
    # Latents scored without decoding them, by a model that foresees the reward: everywhere, or in the first half.
    "latent reward": lambda k, usual: usual | {"latent_reward": LatentImageReward(LATENT)},
    "latent reward, then decoded": lambda k, usual: usual | {"latent_reward": LatentImageReward(LATENT, until=0.5)},
    "latent reward, then tiny decoder": lambda k, usual: (
        usual | {"preview_decoder": TINY, "latent_reward": LatentImageReward(LATENT, until=0.5)}
    ),
    "latent reward, then tiny decoder, early stop": lambda k, usual: (
        usual | _cheap() | {"latent_reward": LatentImageReward(LATENT, until=0.5)}
    ),
    # Scales that grow.
    "linear": lambda k, usual: usual | {"tempering": Linear(0.2)},
    "geometric": lambda k, usual: usual | {"tempering": Geometric()},
    "adaptive": lambda k, usual: usual | {"tempering": Adaptive(0.5)},
    # Children from a mean that follows the reward, with their importance ratio.
    "twisted": lambda k, usual: (
        usual | {"proposal": GradientProposal(strength=0.5, jacobian=False, schedule=usual["reward_schedule"])}
    ),
    # Searches, which do not sample the target.
    "svdd": lambda k, usual: _search(SVDD(children=k), usual),
    "svdd, tiny decoder": lambda k, usual: _search(SVDD(children=k), usual) | {"preview_decoder": TINY},
    "code": lambda k, usual: _search(CoDe(block=5), usual),
    "sequential": lambda k, usual: _search(SequentialBestOfN(threshold=GOOD, most=16), usual),
}
SEARCHES = ("svdd", "svdd, tiny decoder", "code", "sequential")
EXACT = tuple(name for name in METHODS if name not in SEARCHES)


def method_settings(name: str, k: int, usual: Settings) -> Settings:
    """Arguments of `fklit.steer` of a method.

    Args:
        name: a key of `METHODS`, "" for a plain difference.
        k: samples of each prompt.
        usual: arguments that the method starts from.

    Raises:
        ValueError: there is no such method.
    """
    if name not in METHODS:
        raise ValueError(f"expected a method of {', '.join(filter(None, METHODS))}, got {name!r}; choose one.")
    return METHODS[name](k, usual)

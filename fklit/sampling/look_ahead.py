"""Look-ahead intermediate rewards: clean samples are drawn from each particle by a short rollout, and scored."""

from dataclasses import dataclass

from fklit.checks import check_count, check_fraction


@dataclass(frozen=True, kw_only=True)
class LookAhead:
    """Scores each particle by clean samples that are drawn from it, in place of its denoised prediction.

    The denoised prediction is the mean of `x_0` given `x_t`, which early in a run is blurred and no sample at all. Here
    `num_samples` of each particle are rolled out by `num_steps` evaluations of the denoiser: the one that the step has
    made already, and the others at lower levels of the scheduler's own grid, evenly spread over the steps that are left
    (all of them where `num_steps` is as large, so at the end of a run there are fewer). Steps of DDIM lead from one
    level to the next, and the last prediction is decoded and scored. The particle's reward is
    `(1 / reward_scale) log mean_n exp(reward_scale r_n)`, and the mean at scale 0 (the many-sample intermediate reward
    of Singhal et al. 2025, arXiv 2501.06848, section 3.2). For many samples and steps it is
    `(1 / reward_scale) log E[exp(reward_scale r(x_0)) | x_t]`.

    The target does not depend on it: finished samples are scored by themselves. Each scored step costs
    `num_samples * (num_steps - 1)` more evaluations of the denoiser, and `num_samples` decodes and scores a particle.

    Attributes:
        num_samples: N, draws of each particle, at least 1.
        num_steps: denoiser evaluations behind each draw, at least 1; with 1, and one draw, it is the plain score.
        eta: noise of the steps between levels, in [0, 1]: 1 is that of the posterior, 0 none.

    Raises:
        ValueError: a number is out of its range, or all draws of a particle would be equal.
    """

    num_samples: int = 1
    num_steps: int = 2
    eta: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_samples", check_count("num_samples", self.num_samples))
        object.__setattr__(self, "num_steps", check_count("num_steps", self.num_steps))
        object.__setattr__(self, "eta", float(check_fraction("eta", self.eta)))
        if self.num_samples > 1 and (self.num_steps == 1 or self.eta == 0):
            name, value = ("num_steps", 1) if self.num_steps == 1 else ("eta", 0)
            raise ValueError(
                f"expected num_samples=1 with {name}={value}, which draws no noise, got num_samples="
                f"{self.num_samples}, all equal; raise {name}, or draw one."
            )

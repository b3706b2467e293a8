"""What does not fit together is refused with one sentence."""

import pytest
import torch
from mixtures import experts

from fklit.correctors import (
    Corrector,
    DifferentPathsError,
    EulerMaruyama,
    ExactRatio,
    FittedControl,
    GaussianControl,
    Heun,
    ImproperTargetError,
    IncompatibleError,
    KernelWeight,
    NonFiniteScoreError,
    ProposalError,
    Ramp,
    Rate,
    ReverseKernel,
    SplitNoise,
    Target,
    Uncorrected,
    VarianceExploding,
    VariancePreserving,
    simulate,
)

FIRST, SECOND, THIRD = experts()
GRID = VariancePreserving().grid(10)


class ScoreOnly:
    """An expert of which nothing but the score is known."""

    def __init__(self, inner, spoil=None):
        self.path, self.inner, self.spoil = inner.path, inner, spoil

    def score(self, x, t):
        score = self.inner.score(x, t)
        if self.spoil is not None and t < 0.5:
            score = score.clone()
            score[0, 1] = self.spoil
        return score


def test_an_improper_geometric_average():
    with pytest.raises(ImproperTargetError, match="no finite integral at t="):
        Corrector(Target.guided(FIRST, SECOND, 7.0), GRID)
    Corrector(Target.guided(FIRST, SECOND, 4.0), GRID)
    Corrector(Target.guided(FIRST, SECOND, 7.0), GRID, increment=Uncorrected())  # the heuristic asks for no density
    with pytest.raises(ImproperTargetError, match="sum to -1 at the noise end"):
        Corrector(Target.product([ScoreOnly(FIRST)], [-1.0]), GRID, event_shape=(1,))


def test_experts_on_different_paths():
    with pytest.raises(DifferentPathsError, match="expert 0 is on VariancePreserving"):
        Target.product([FIRST, experts(VarianceExploding())[1]])
    with pytest.raises(DifferentPathsError):
        Target.guided(FIRST, experts(VariancePreserving(0.1, 19.0))[1], 2.0)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"proposal": ReverseKernel(), "increment": Rate()}, "use KernelWeight"),
        ({"proposal": ReverseKernel("posterior")}, "worse than none"),
        ({"proposal": EulerMaruyama(), "increment": KernelWeight()}, "weighs reverse kernels, not EulerMaruyama"),
        ({"proposal": Heun(), "increment": ExactRatio()}, "density of the step"),
        ({"proposal": SplitNoise(), "increment": ExactRatio()}, "density of the step"),
        ({"proposal": EulerMaruyama("ode"), "increment": ExactRatio()}, "density of the step"),
        ({"proposal": ReverseKernel(), "control": FittedControl()}, "omit control="),
        ({"proposal": EulerMaruyama(), "increment": ExactRatio(), "control": FittedControl()}, "needs Rate"),
    ],
)
def test_increments_that_do_not_fit_the_proposal(settings, sentence):
    with pytest.raises(IncompatibleError, match=sentence):
        Corrector(Target.annealed(FIRST, 2.0), GRID, **settings)


def test_experts_that_lack_what_is_needed():
    bare = ScoreOnly(FIRST)
    with pytest.raises(IncompatibleError, match="ExactRatio\\(\\) needs log_density"):
        Corrector(Target.annealed(bare, 2.0), GRID, increment=ExactRatio(), event_shape=(1,))
    with pytest.raises(ValueError, match="log_density='exact'"):
        Target.annealed(bare, Ramp.late(2.0), log_density="exact")
    with pytest.raises(ValueError, match="needs zeta = 1"):
        Corrector(Target.annealed(bare, Ramp.late(2.0)), GRID, proposal=EulerMaruyama(0.5), event_shape=(1,))
    with pytest.raises(ValueError, match="needs mean and variance"):
        Corrector(Target.annealed(bare, 2.0), GRID, control=GaussianControl(), event_shape=(1,))
    with pytest.raises(ValueError, match="give event_shape="):
        Corrector(Target.annealed(bare, 2.0), GRID)
    with pytest.raises(ValueError, match="not known"):
        Target.annealed(bare, 2.0).log_gamma(torch.zeros(1, 1, 1), 0.5)


def test_tempered_noise_of_unequal_exponents():
    with pytest.raises(ProposalError, match="the same positive number"):
        Corrector(Target.product([FIRST, SECOND], [1.0, 2.0]), GRID, proposal=EulerMaruyama("tempered_noise"))


def test_a_combined_kernel_without_variance():
    target = Target.product([FIRST, SECOND], [Ramp(1.0, 0.1), Ramp(1.0, -3.0)])
    with pytest.raises(ProposalError, match="take more steps"):
        Corrector(target, (1.0, 0.5, 0.0), proposal=ReverseKernel(), increment=Uncorrected())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_not_finite(value):
    target = Target.annealed(ScoreOnly(FIRST, spoil=value), 2.0)
    with pytest.raises(NonFiniteScoreError, match="NaN or infinity from expert 0 for 1 of 8 particles"):
        simulate(target, num_particles=4, num_groups=2, num_steps=10, event_shape=(1,))
    dropped = simulate(target, num_particles=4, num_groups=2, num_steps=10, event_shape=(1,), on_nan="drop")
    assert dropped.dropped.tolist()[1] == 0 and dropped.dropped[0] > 0


def test_scores_and_rewards_of_a_wrong_shape():
    class Flat(ScoreOnly):
        def score(self, x, t):
            return super().score(x, t).squeeze(-1)

    with pytest.raises(ValueError, match="a score of the samples' shape"):
        simulate(Target.annealed(Flat(FIRST), 2.0), num_particles=3, num_steps=3, event_shape=(1,))
    with pytest.raises(ValueError, match="one number a particle"):
        simulate(Target.tilted(FIRST, lambda x: x), num_particles=3, num_steps=3)
    with pytest.raises(ValueError, match="has no gradient"):
        simulate(Target.tilted(FIRST, lambda x: x.detach()[..., 0]), num_particles=3, num_steps=3)


def test_targets_that_are_none():
    with pytest.raises(ValueError, match="no experts"):
        Target(())
    with pytest.raises(TypeError, match="expert 0 is a str"):
        Target.annealed("model", 2.0)
    with pytest.raises(TypeError, match="exponent 0"):
        Target.annealed(FIRST, "hot")
    with pytest.raises(ValueError, match="2 exponents for 1 models"):
        Target.product([FIRST], [1.0, 2.0])
    with pytest.raises(ValueError, match="sum to 1"):
        Target.geometric_average([FIRST, SECOND], [0.5, 0.6])
    with pytest.raises(ValueError, match="tilt once"):
        Target.tilted(Target.tilted(FIRST, lambda x: x[..., 0]), lambda x: x[..., 0])
    with pytest.raises(ValueError, match="build the product first"):
        Target.annealed(Target.tilted(FIRST, lambda x: x[..., 0]), 2.0)
    with pytest.raises(ValueError, match="got nan at t="):
        Target.annealed(FIRST, lambda t: float("nan")).exponents(0.5)
    with pytest.raises(TypeError, match="target is a NoisedMixture"):
        Corrector(FIRST, GRID)
    with pytest.raises(ValueError, match="clamp=0"):
        Corrector(Target.annealed(FIRST, 2.0), GRID, clamp=0.0)


def test_the_sugar_writes_the_exponents_it_says():
    assert Target.guided(FIRST, SECOND, 3.0).exponents(0.5) == (3.0, -2.0)
    assert Target.composed(THIRD, [FIRST, SECOND], [2.0, -0.5]).exponents(0.5) == (-0.5, 2.0, -0.5)
    assert Target.guided_product(THIRD, [FIRST, SECOND], 2.0).exponents(0.5) == (-2.0, 2.0, 2.0)
    assert Target.annealed(Target.guided(FIRST, SECOND, 3.0), 2.0).exponents(0.5) == (6.0, -4.0)
    assert Target.product([FIRST, SECOND, FIRST], [1.0, 1.0, 0.5]).exponents(0.5) == (1.5, 1.0)
    assert Target.guided(FIRST, SECOND, Ramp(1.0, 3.0)).exponents(0.5) == (2.0, -1.0)
    assert Target.annealed(FIRST, Ramp.late(3.0, start=0.5)).exponents(0.25) == (2.0,)

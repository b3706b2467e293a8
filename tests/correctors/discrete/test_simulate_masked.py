"""Masked experts in one call: those that share something are asked together, others one by one."""

import pytest
import torch

from fklit.correctors import JointExpert, MaskedCorrector, MaskedPath, Target, simulate_masked
from fklit.feynman_kac import group_generators, run

PATH = MaskedPath(mask=2, length=2)


class Plain:
    """Site-wise laws over two values."""

    def __init__(self, seed):
        self.path, self.asked = PATH, 0
        logits = torch.randn(2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        self.table = torch.log_softmax(logits, dim=1)

    def log_probs(self, tokens, t):
        self.asked += 1
        return self.table.expand(*tokens.shape, 2)


class Joint(Plain):
    def __init__(self, seed, shared):
        super().__init__(seed)
        self.shared, self.together = shared, []

    def joint_log_probs(self, experts, tokens, t):
        self.together.append(len(experts))
        return [one.table.expand(*tokens.shape, 2) for one in experts]


def test_experts_that_share_something_are_asked_together():
    experts = [Joint(0, "a"), Plain(1), Joint(2, "a"), Joint(3, "b")]
    exponents = [0.5, 0.7, 0.2, 0.1]
    assert isinstance(experts[0], JointExpert) and not isinstance(experts[1], JointExpert)
    found = simulate_masked(Target.product(experts, exponents), num_particles=50, num_steps=8)
    assert experts[0].together == [2] * 8 and experts[2].together == [] and experts[3].together == [1] * 8
    assert experts[1].asked == 8 and experts[0].asked == 0
    plain = [Plain(seed) for seed in range(4)]
    alone = simulate_masked(Target.product(plain, exponents), num_particles=50, num_steps=8)
    assert torch.equal(found.samples, alone.samples) and torch.equal(found.log_weights, alone.log_weights)


def test_it_is_the_corrector_under_the_engine():
    target = Target.product([Plain(0), Plain(1)], [1.5, -0.3])
    found = simulate_masked(target, num_particles=20, num_groups=3, num_steps=6, ess_threshold=0.7, seed=4)
    model = MaskedCorrector(target, PATH.grid(6))
    wanted = run(model, num_groups=3, num_particles=20, ess_threshold=0.7, generator=group_generators(4, 3))
    assert torch.equal(found.samples, wanted.samples["x"]) and torch.equal(found.log_z, wanted.log_z)
    assert found.best().shape == (3, 2) and found.budget.denoiser_calls == 2 * 3 * 20 * 6
    plain = simulate_masked(target, num_particles=20, num_steps=6, corrected=False)
    assert (plain.log_z == 0).all() and not plain.resampled.any()


def test_the_evidence_of_independent_sites_is_exact():
    first, second = Plain(0), Plain(1)
    found = simulate_masked(Target.product([first, second], [0.6, 0.4]), num_particles=4000, num_steps=30)
    wanted = torch.logsumexp(0.6 * first.table + 0.4 * second.table, dim=1).sum()
    torch.testing.assert_close(found.log_z[0], wanted, atol=0.02, rtol=0)


def test_steps_are_at_least_one():
    with pytest.raises(ValueError, match="num_steps=0 is too small"):
        simulate_masked(Target.annealed(Plain(0), 1.5), num_steps=0)

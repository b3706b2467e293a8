"""One site a step: exact for every particle number in the mean, on enumerated laws, orders and dead ends included."""

import itertools
import math

import pytest
import torch
from enumerated_masks import PATH, Enumerated, distance

from fklit.correctors import MaskedCorrector, MaskedPath, Target, simulate_masked
from fklit.correctors.discrete.one_site import unmask_one
from fklit.feynman_kac import run

TARGETS = {
    "product": ([1, 2], [1.5, 0.5]),
    "guidance": ([1, 2], [2.0, -1.0]),
    "annealing": ([1], [2.0]),
    "three": ([1, 2, 3], [1.0, 0.8, -0.6]),
}


def gamma_of(experts, exponents):
    return sum(e * one.law.log() for one, e in zip(experts, exponents, strict=True)).exp()


@pytest.mark.parametrize("name", TARGETS)
def test_it_is_the_target_without_an_error_of_steps(name):
    seeds, exponents = TARGETS[name]
    experts = [Enumerated(seed, PATH) for seed in seeds]
    gamma = gamma_of(experts, exponents)
    found = simulate_masked(Target.product(experts, exponents), num_particles=20_000, ess_threshold=0.9)
    assert found.samples.max() < 4
    index = (found.samples * torch.tensor([16, 4, 1])).sum(dim=-1)
    law = torch.zeros(64, dtype=torch.float64).scatter_add(0, index[0], torch.softmax(found.log_weights[0], 0))
    assert distance(law, gamma) < 0.03
    assert float(found.log_z[0]) == pytest.approx(float(gamma.sum().log()), abs=0.02)


def test_the_evidence_is_unbiased_for_two_particles():
    experts = [Enumerated(1, PATH), Enumerated(2, PATH)]
    exponents = [2.0, -1.0]
    found = simulate_masked(Target.product(experts, exponents), num_particles=2, num_groups=20_000, ess_threshold=1.0)
    z = found.log_z.exp()
    error = float(z.std()) / math.sqrt(len(z))
    assert abs(float(z.mean()) - float(gamma_of(experts, exponents).sum())) < 3.5 * error


class Disagreeing:
    """Predictions that depend on the order of sites: of no joint law, as those of networks."""

    path = MaskedPath(mask=2, length=2)

    def __init__(self, seed):
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.log_softmax(torch.randn(9, 2, 2, generator=generator, dtype=torch.float64), dim=-1)

    def log_probs(self, tokens, t):
        return self.table[tokens[..., 0] * 3 + tokens[..., 1]]


def test_predictions_of_no_joint_law_give_the_mean_over_orders():
    experts, exponents = [Disagreeing(0), Disagreeing(1)], [1.5, 0.7]
    combined = sum(e * one.table for one, e in zip(experts, exponents, strict=True)).exp()
    wanted = torch.zeros(2, 2, dtype=torch.float64)
    for a, b in itertools.product(range(2), repeat=2):
        first = combined[8, 0, a] * combined[a * 3 + 2, 1, b]
        second = combined[8, 1, b] * combined[6 + b, 0, a]
        wanted[a, b] = 0.5 * (first + second)
    found = simulate_masked(Target.product(experts, exponents), num_particles=40_000)
    pairs = found.samples[0, :, 0] * 2 + found.samples[0, :, 1]
    law = torch.zeros(4, dtype=torch.float64).scatter_add(0, pairs, torch.softmax(found.log_weights[0], 0))
    torch.testing.assert_close(law, wanted.flatten() / wanted.sum(), atol=0.01, rtol=0)
    assert float(found.log_z[0]) == pytest.approx(float(wanted.sum().log()), abs=0.01)


def test_a_step_has_the_mean_weight_and_draws_site_and_token_by_it():
    combined = torch.randn(1, 1, 3, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    combined[0, 0, 1, 2] = -math.inf
    masked = torch.tensor([[[True, True, False]]])
    shares = combined.exp()[0, 0, :2]
    many = 100_000
    generator = torch.Generator().manual_seed(0)
    weight, site, token = unmask_one(masked.expand(1, many, 3), combined.expand(1, many, 3, 4).contiguous(), generator)
    torch.testing.assert_close(weight, (shares.sum() / 2).log().expand(1, many))
    counts = torch.bincount((site * 4 + token)[0], minlength=12).double().view(3, 4) / many
    torch.testing.assert_close(counts[:2], shares / shares.sum(), atol=0.006, rtol=0)
    assert counts[2].sum() == 0 and counts[1, 2] == 0


class Excluding:
    """Sites of equal tokens only: the second expert's other sites must differ, so some particles can not go on."""

    path = MaskedPath(mask=2, length=3)

    def __init__(self, equal):
        self.equal = equal

    def log_probs(self, tokens, t):
        first = tokens[..., :1].expand_as(tokens)
        values = torch.arange(2)
        fits = (first.unsqueeze(-1) == values) == self.equal
        free = (first == 2).unsqueeze(-1) | (torch.arange(3) != 2)[:, None]
        return torch.where(free, math.log(0.5), torch.where(fits, 0.0, -math.inf)).double()


def test_a_particle_that_cannot_go_on_has_no_weight_and_keeps_its_mask():
    target = Target.product([Excluding(True), Excluding(False)], [1.0, 1.0])
    with pytest.raises(Exception, match="particles"):
        simulate_masked(Target.product([Never(), Never()], [1.0, 1.0]), num_particles=4)
    plain = simulate_masked(Target.product([Never(), Never()], [1.0, 1.0]), num_particles=4, corrected=False)
    assert (plain.samples == 2).all()
    found = simulate_masked(target, num_particles=2000, ess_threshold=0.0, seed=1)
    stuck = (found.samples == 2).any(dim=-1)
    assert 0 < stuck.double().mean() < 1
    assert torch.equal(found.log_weights.isneginf(), stuck)


class Never(Excluding):
    """No token anywhere."""

    def __init__(self):
        super().__init__(True)

    def log_probs(self, tokens, t):
        return torch.full((*tokens.shape, 2), -math.inf, dtype=torch.float64)


def test_rewards_go_with_it():
    expert = Enumerated(1, PATH)
    target = Target.tilted(expert, lambda tokens: (tokens == 0).double().sum(dim=-1), 1.0, gradient=False)
    model = MaskedCorrector(target)
    assert model.num_steps == 3
    result = run(model, num_particles=20_000, ess_threshold=0.9, generator=torch.Generator().manual_seed(0))
    gamma = expert.law * (expert.states == 0).double().sum(dim=1).exp()
    index = (result.samples["x"] * torch.tensor([16, 4, 1])).sum(dim=-1)
    law = torch.zeros(64, dtype=torch.float64).scatter_add(0, index[0], torch.softmax(result.log_weights[0], 0))
    assert distance(law, gamma) < 0.03
    assert float(result.log_z[0]) == pytest.approx(float(gamma.sum().log()), abs=0.02)


def test_times_of_the_steps_have_as_many_masked_sites_in_the_mean():
    path = MaskedPath(mask=9, length=5, power=2.0)
    times = path.one_by_one()
    assert times[0] == 1.0 and times[-1] == 0.0
    assert [path.alpha(t) for t in times] == pytest.approx([k / 5 for k in range(6)])

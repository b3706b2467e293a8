"""Particle Gibbs on the enumerable chain: its law is the target where that of as many particles of SMC is not."""

import math
from itertools import pairwise

import pytest
import torch
from worlds import GaussianChain, MaskedChain, MaskedWorld, TwistedMaskedChain

from fklit.feynman_kac import Difference, Max, Terminal, join, normalize, particle_gibbs, run


@pytest.fixture(scope="module")
def world():
    return MaskedWorld()


def law(world, result):
    """Of the groups' particles, each group by weight."""
    share = normalize(result.log_weights).flatten() / result.num_groups
    return torch.zeros(256, dtype=torch.float64).scatter_add(0, result.samples[0].flatten(), share)


def variation(world, result):
    return float((law(world, result) - world.target).abs().sum() / 2)


@pytest.mark.parametrize("potential", [Difference(), Max(), Terminal()], ids=["difference", "max", "terminal"])
@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_sweeps_converge_to_the_target_with_few_particles(world, potential, threshold):
    def sampled(sweeps):
        return particle_gibbs(
            MaskedChain(world, potential), num_sweeps=sweeps, num_groups=2000, num_particles=4, ess_threshold=threshold,
            generator=torch.Generator().manual_seed(1),
        )  # fmt: skip

    before, after = variation(world, sampled(0)), variation(world, sampled(12))
    print(f"total variation {before:.3f}, after 12 sweeps {after:.3f}")
    assert after < 0.06 < 0.1 < before


def test_two_particles_suffice(world):
    result = particle_gibbs(
        MaskedChain(world, Difference()), num_sweeps=40, num_groups=1500, num_particles=2, ess_threshold=1.0,
        generator=torch.Generator().manual_seed(2),
    )  # fmt: skip
    assert variation(world, result) < 0.06


def test_the_kept_particle_stands_in_slot_0_and_weighs_what_its_path_says(world):
    seen = []
    result = particle_gibbs(
        MaskedChain(world, Difference()), num_sweeps=3, num_groups=50, num_particles=4, ess_threshold=0.0,
        generator=torch.Generator().manual_seed(0), observe=lambda t, state: seen.append((t, state[0].clone())),
    )  # fmt: skip
    assert [t for t, _ in seen] == [0, 1, 2, 3] * 4
    final = [state for t, state in seen if t == 3]
    for before, after in pairwise(final):  # it is one of the last sweep's particles
        assert (after[:, :1] == before).any(dim=1).all()
    expected = (world.scale * world.predicted_reward[result.samples[0]]).log_softmax(dim=1)
    torch.testing.assert_close(result.log_weights, expected)


def test_without_sweeps_it_is_plain_smc_bit_for_bit():
    plain = run(GaussianChain(), num_groups=3, num_particles=8, generator=torch.Generator().manual_seed(4))
    found = particle_gibbs(
        GaussianChain(), num_sweeps=0, num_groups=3, num_particles=8, generator=torch.Generator().manual_seed(4)
    )
    assert torch.equal(plain.samples["x"], found.samples["x"]) and torch.equal(plain.log_weights, found.log_weights)
    assert torch.equal(plain.log_z, found.log_z) and torch.equal(plain.ess, found.ess) and plain.steps == found.steps
    both = zip(plain.ancestors, found.ancestors, strict=True)
    assert all(a is b is None or torch.equal(a, b) for a, b in both)


def test_the_evidence_is_that_of_the_first_run_and_unbiased(world):
    result = particle_gibbs(
        MaskedChain(world, Difference()), num_sweeps=1, num_groups=2000, num_particles=4, ess_threshold=1.0,
        generator=torch.Generator().manual_seed(3),
    )  # fmt: skip
    ratio = result.log_z.exp() / world.z
    assert abs(float(ratio.mean()) - 1) < 3 * float(ratio.std()) / math.sqrt(2000)


def test_the_optimal_twist_keeps_constant_weights(world):
    result = particle_gibbs(
        TwistedMaskedChain(world), num_sweeps=3, num_groups=20, num_particles=3, ess_threshold=1.0,
        generator=torch.Generator().manual_seed(3),
    )  # fmt: skip
    assert (result.log_weights + math.log(3)).abs().max() < 1e-10


def test_groups_do_not_depend_on_their_neighbors(world):
    def sampled(seeds):
        return particle_gibbs(
            MaskedChain(world, Difference()), num_sweeps=3, num_groups=len(seeds), num_particles=4, ess_threshold=1.0,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        )  # fmt: skip

    both, alone = sampled([1, 2]), sampled([2])
    assert torch.equal(both.samples[0][1], alone.samples[0][0])
    assert torch.equal(both.log_weights[1], alone.log_weights[0])


def test_what_cannot_be_is_refused(world):
    with pytest.raises(ValueError, match="expected num_particles of at least 2 with num_sweeps=1, got 1"):
        particle_gibbs(MaskedChain(world, Difference()), num_sweeps=1, num_particles=1)
    with pytest.raises(ValueError, match="num_sweeps"):
        particle_gibbs(MaskedChain(world, Difference()), num_sweeps=-1, num_particles=2)
    with pytest.raises(TypeError, match="expected states of one structure to join"):
        join({"x": torch.zeros(1, 1)}, {"x": None})

    class Odd:
        def selected(self, ancestors):
            return self

    with pytest.raises(TypeError, match=r"got a Odd; give its class a method joined\(other\)"):
        join(Odd(), Odd())

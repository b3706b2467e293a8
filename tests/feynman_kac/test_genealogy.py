"""Family trees: lines lead back to where the particles came from."""

import pytest
import torch

from fklit.feynman_kac import ParticleSystem, coalescence, group_generators, lineages, roots, unique_roots

TREE = (torch.tensor([[0, 0, 2]]), None, torch.tensor([[1, 1, 2]]), torch.tensor([[0, 1, 1]]))


def test_a_tree_by_hand() -> None:
    assert lineages(TREE, num_groups=1, num_particles=3)[:, 0].tolist() == [
        [0, 0, 0],
        [1, 1, 1],
        [1, 1, 1],
        [0, 1, 1],
        [0, 1, 2],
    ]
    assert roots(TREE, num_groups=1, num_particles=3)[:, 0].tolist() == [[0, 0, 2], [0, 0, 2], [0, 0, 2], [0, 0, 0]]
    assert unique_roots(TREE, num_groups=1, num_particles=3)[:, 0].tolist() == [2, 2, 2, 1]
    assert coalescence(TREE, num_groups=1, num_particles=3).tolist() == [2]


def test_without_a_resampling_everyone_is_their_own_root() -> None:
    trace = (None, None)
    assert unique_roots(trace, num_groups=2, num_particles=4).tolist() == [[4, 4], [4, 4]]
    assert coalescence(trace, num_groups=2, num_particles=4).tolist() == [-1, -1]
    assert torch.equal(lineages(trace, num_groups=2, num_particles=4), torch.arange(4).expand(3, 2, 4))
    assert coalescence(trace, num_groups=1, num_particles=1).tolist() == [2]
    assert unique_roots((), num_groups=2, num_particles=4).shape == (0, 2)


def test_lineages_recover_what_the_particles_carried() -> None:
    """Each particle carries its root and its history of slots as data, re-indexed like any state."""
    num_groups, num_particles = 5, 7
    system = ParticleSystem(num_groups, num_particles, ess_threshold=0.9, generator=group_generators(1, num_groups))
    carried = []
    for step in range(12):
        generator = torch.Generator().manual_seed(step)
        slots = torch.arange(num_particles).repeat(num_groups, 1)
        carried.append(slots)
        ancestors = system.update(torch.randn(num_groups, num_particles, generator=generator))
        if ancestors is not None:
            carried = [column.gather(1, ancestors) for column in carried]
    shape = {"num_groups": num_groups, "num_particles": num_particles}
    lines = lineages(system.ancestors, **shape)
    assert torch.equal(lines[:-1], torch.stack(carried))
    assert torch.equal(roots(system.ancestors, **shape)[-1], carried[0])
    counts = unique_roots(system.ancestors, **shape)
    assert (counts.diff(dim=0) <= 0).all()
    assert counts[-1].tolist() == [len(set(row.tolist())) for row in carried[0]]
    for group, row in enumerate(coalescence(system.ancestors, **shape).tolist()):
        single = [s for s in range(13) if len(set(lines[s, group].tolist())) == 1]
        assert row == (max(single) if single else -1)


def test_a_trace_of_another_run_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ancestors has shape \(1, 3\) but the run has 1 groups of 4 particles"):
        lineages(TREE, num_groups=1, num_particles=4)


def test_a_tree_lives_on_the_device_of_its_ancestors() -> None:
    there = (None, torch.zeros(2, 3, dtype=torch.int64, device="meta"))
    for function in (lineages, roots, unique_roots, coalescence):
        assert function(there, num_groups=2, num_particles=3).device.type == "meta"
        assert function((None,), num_groups=2, num_particles=3).device.type == "cpu"


def test_an_empty_trace() -> None:
    shape = {"num_groups": 2, "num_particles": 3}
    assert torch.equal(lineages((), **shape), torch.arange(3).expand(1, 2, 3))
    assert roots((), **shape).shape == (0, 2, 3)
    assert coalescence((), **shape).tolist() == [-1, -1] and coalescence(
        (), num_groups=2, num_particles=1
    ).tolist() == [
        0,
        0,
    ]
    for wrong in ({"num_groups": 0, "num_particles": 3}, {"num_groups": 2, "num_particles": 0}):
        with pytest.raises(ValueError, match=r"=0 is too small"):
            roots((), **wrong)

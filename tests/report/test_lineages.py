import numpy as np

from fklit.report.lineages import thin, trace


def test_trace_follows_returned_samples_back():
    # step 0: slots 0 and 1 both continue slot 1; step 1: nothing; step 2: slot 2 continues slot 0
    ancestors = np.array([[1, 1, 2], [0, 1, 2], [0, 1, 0]])
    family = trace(ancestors, chosen=2)
    assert family.roots[-1].tolist() == [1, 1, 1]
    assert family.alive.tolist() == [[False, True, False], [True, True, False], [True, True, False], [True] * 3]
    assert family.chosen.tolist() == [
        [False, True, False],
        [True, False, False],
        [True, False, False],
        [False, False, True],
    ]


def test_trace_without_scored_steps():
    family = trace(np.zeros((0, 3), dtype=np.int64), chosen=1)
    assert family.roots.tolist() == [[0, 1, 2]]
    assert family.alive.all()


def test_thin_joins_ancestors_and_keeps_first_and_resampled():
    rng = np.random.default_rng(0)
    steps, slots = 40, 6
    resampled = np.zeros(steps, dtype=bool)
    resampled[[7, 19, 33]] = True
    ancestors = np.tile(np.arange(slots), (steps, 1))
    for s in (7, 19, 33):
        ancestors[s] = rng.integers(0, slots, slots)
    kept, joined = thin(ancestors, resampled, 8)
    assert len(kept) == 8
    assert {0, 7, 19, 33} <= set(kept.tolist())
    full, short = trace(ancestors, 2), trace(joined, 2)
    for column, s in enumerate(kept.tolist()):
        assert np.array_equal(full.alive[s], short.alive[column])
        assert np.array_equal(full.roots[s], short.roots[column])
        assert np.array_equal(full.chosen[s], short.chosen[column])
    assert np.array_equal(full.roots[-1], short.roots[-1])


def test_thin_leaves_short_runs_alone():
    ancestors = np.array([[0, 0], [1, 0]])
    kept, joined = thin(ancestors, np.array([True, True]), 5)
    assert kept.tolist() == [0, 1]
    assert joined is ancestors

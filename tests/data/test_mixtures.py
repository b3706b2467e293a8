"""Draws of a Gaussian mixture as training data: reproducible, apart from those to validate on, and of the law."""

import pytest
import torch

from fklit.data.mixtures import MixtureDataModule

MEANS, VARIANCES, WEIGHTS = [[-2.0, 0.5], [2.0, -0.5]], [0.1, 0.2], [0.25, 0.75]


def points(loader):
    return torch.cat(list(loader))


def test_draws_are_those_of_the_law():
    data = MixtureDataModule(MEANS, VARIANCES, WEIGHTS, num_train=20_000, num_val=3000, batch_size=64)
    batches = list(data.train_dataloader())
    assert len(batches) == 312 and all(batch.shape == (64, 2) and batch.dtype == torch.float32 for batch in batches)
    x = points(batches)
    left = x[:, 0] < 0
    assert left.double().mean() == pytest.approx(0.25, abs=0.015)
    for side, mean, variance in ((left, MEANS[0], 0.1), (~left, MEANS[1], 0.2)):
        assert torch.allclose(x[side].mean(0), torch.tensor(mean), atol=0.03)
        assert x[side].var(0).tolist() == pytest.approx([variance] * 2, rel=0.06)
    assert sum(len(batch) for batch in data.val_dataloader()) == 3000


def test_draws_depend_on_the_seed_and_validation_is_another_draw():
    def make(seed=0):
        return MixtureDataModule(MEANS, VARIANCES, num_train=64, num_val=64, batch_size=16, seed=seed)

    train, val = points(make().train_dataloader()), points(make().val_dataloader())
    assert torch.equal(points(make().train_dataloader()), train) and torch.equal(points(make().val_dataloader()), val)
    seen = [{tuple(row) for row in part.tolist()} for part in (train, val)]
    for seed in (1, 2):
        seen += [{tuple(row) for row in points(make(seed).train_dataloader()).tolist()}]
        seen += [{tuple(row) for row in points(make(seed).val_dataloader()).tolist()}]
    assert all(len(part) == 64 for part in seen) and len(set.union(*seen)) == 6 * 64  # no two share a draw
    first = make().train_dataloader()
    assert not torch.equal(points(first), points(first))  # another order in every epoch


def test_defaults():
    data = MixtureDataModule(MEANS, VARIANCES)
    assert (data.num_train, data.num_val, data.batch_size, data.seed) == (50_000, 5000, 512, 0)


def test_bad_numbers():
    for name in ("num_train", "num_val", "batch_size"):
        with pytest.raises(ValueError, match=f"expected {name} of at least 1, got 0"):
            MixtureDataModule(MEANS, VARIANCES, **{name: 0})

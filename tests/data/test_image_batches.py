"""Order, subsets, augmentation and resuming of the labeled images: pure functions of seed, epoch and index."""

import itertools
import logging
import math
from collections import Counter

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DistributedSampler

from fklit.data.batch_order import BatchLoader, BatchOrder
from fklit.data.counter_random import random_bits, shuffled
from fklit.data.digits import DigitsDataModule
from fklit.data.image_batches import Draw, FlipAndCrop, ImageDataset, ImagesInMemory, Normalization

ALL = np.arange(23)


def images(number=23):
    pixels = np.random.default_rng(0).integers(0, 256, (number, 3, 6, 5), dtype=np.uint8)
    return ImagesInMemory(pixels, np.arange(number) % 4)


def dataset(**options):
    return ImageDataset(images(), Normalization((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)), **options)


def test_random_bits_are_fixed_and_look_random():
    assert [int(b) for b in random_bits(0, np.arange(2))] == [int(random_bits(0, 0)), int(random_bits(0, 1))]
    assert int(random_bits(7, 1, 2)) == int(random_bits(7, 1, np.array([2]))[0]) == 0xF239377388B01D44
    bits = random_bits(3, np.arange(4000)[:, None], np.arange(2))
    assert len(np.unique(bits)) == bits.size
    ones = np.unpackbits(bits.view(np.uint8).reshape(-1, 8), axis=1).mean(axis=0)
    assert np.abs(ones - 0.5).max() < 5 * 0.5 / np.sqrt(8000)
    assert sorted(shuffled(50, 1, 2)) == list(range(50)) and (shuffled(50, 1, 2) != shuffled(50, 1, 3)).any()
    assert random_bits(-1, -5) != random_bits(1, 5)


def test_first_draws_of_a_shuffle_are_uniform():
    first = Counter(int(shuffled(5, seed)[0]) for seed in range(2000))
    assert all(abs(first[n] - 400) < 5 * np.sqrt(2000 * 0.2 * 0.8) for n in range(5))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_training_covers_an_epoch_once_in_an_order_of_its_own(world):
    orders = [BatchOrder(ALL, 4, shuffle=True, seed=5, rank=r, num_processes=world) for r in range(world)]
    assert all(isinstance(order, DistributedSampler) and len(order) == 23 // world // 4 for order in orders)
    epochs = []
    for epoch in range(2):
        for order in orders:
            order.set_epoch(epoch)
        drawn = [draw for order in orders for draw in order]
        assert all(draw.epoch == epoch and len(draw.rows) == 4 for draw in drawn)
        epochs.append(np.concatenate([draw.rows for draw in drawn]))
        assert len(set(epochs[-1])) == len(epochs[-1]) == 4 * world * len(orders[0])
    assert (epochs[0] != epochs[1]).any()


def test_batches_of_two_processes_are_halves_of_the_batches_of_one():
    one = [set(draw.rows) for draw in BatchOrder(ALL, 6, shuffle=True, seed=2)]
    two = [list(BatchOrder(ALL, 3, shuffle=True, seed=2, rank=r, num_processes=2)) for r in range(2)]
    assert [set(a.rows) | set(b.rows) for a, b in zip(*two, strict=True)] == one


def test_evaluation_sees_every_row_once_and_all_processes_have_equally_many_batches():
    refused = set()
    for world, number, size in itertools.product((1, 2, 3), range(1, 24), (1, 2, 5, 50)):
        try:
            orders = [BatchOrder(ALL[:number], size, shuffle=False, rank=r, num_processes=world) for r in range(world)]
        except ValueError as error:
            assert "give more images or fewer processes" in str(error)
            refused.add((world, number, size))
            continue
        batches = [[draw.rows for draw in order] for order in orders]
        assert len({len(part) for part in batches}) == 1 and len(orders[0]) == len(batches[0])
        assert all(1 <= len(rows) <= size for part in batches for rows in part)
        assert sorted(row for part in batches for rows in part for row in rows) == list(range(number))
    # Too few for a row on every process, or rows that single-row batches cannot spread evenly; nothing else.
    assert refused == {
        (world, number, size)
        for world, number, size in itertools.product((1, 2, 3), range(1, 24), (1, 2, 5, 50))
        if number // world < math.ceil(math.ceil(number / world) / size)
    }
    assert all(number < world or size == 1 for world, number, size in refused) and (2, 3, 1) in refused


def test_a_batch_holds_what_it_says():
    batch = dataset()[Draw(0, np.array([7, 3]))]
    assert batch["index"].tolist() == [7, 3] and batch["y"].tolist() == [3, 3]
    assert batch["x"].dtype == torch.float32 and batch["y"].dtype == batch["index"].dtype == torch.int64
    expected = (images().pixels[[7, 3]] / 255 - np.array([0.5, 0.4, 0.3])[:, None, None]) / np.array([0.2, 0.3, 0.4])[
        :, None, None
    ]
    assert np.abs(batch["x"].numpy() - expected).max() < 1e-6


def test_flip_and_crop_is_one_of_the_fifty_views_and_all_come():
    pixels = images(1).pixels
    canvas = np.pad(pixels[0], ((0, 0), (2, 2), (2, 2)), constant_values=9)
    views = {}
    for flip in (False, True):
        for top in range(5):
            for left in range(5):
                view = (canvas[:, :, ::-1] if flip else canvas)[:, top : top + 6, left : left + 5]
                views[view.tobytes()] = (flip, top, left)
    found = FlipAndCrop(padding=2, fill=9)(np.repeat(pixels, 5000, axis=0), random_bits(0, np.arange(5000)))
    assert found.shape == (5000, 3, 6, 5) and found.flags["C_CONTIGUOUS"]
    counts = Counter(views[view.tobytes()] for view in found)
    assert len(counts) == 50 and all(abs(count - 100) < 5 * np.sqrt(100) for count in counts.values())


def test_augmentation_depends_on_seed_epoch_and_index_only():
    data = dataset(augmentation=FlipAndCrop(), seed=1)
    alone = data[Draw(3, np.array([5]))]["x"][0]
    assert torch.equal(data[Draw(3, np.array([9, 1, 5]))]["x"][2], alone)
    views = [data[Draw(epoch, np.array([5]))]["x"][0] for epoch in range(8)]
    assert len({view.numpy().tobytes() for view in views}) > 3
    others = [dataset(augmentation=FlipAndCrop(), seed=s)[Draw(3, np.array([5]))]["x"][0] for s in range(8)]
    assert len({view.numpy().tobytes() for view in others}) > 3


def test_workers_change_nothing_and_the_global_generator_is_left_alone():
    def epochs(num_workers):
        loader = BatchLoader(
            dataset(augmentation=FlipAndCrop()), BatchOrder(ALL, 4, shuffle=True), num_workers=num_workers
        )
        batches = []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            batches += list(loader)
        return batches

    before = torch.get_rng_state()
    here, there = epochs(0), epochs(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(here) == len(there) == 10
    for a, b in zip(here, there, strict=True):
        assert all(torch.equal(a[key], b[key]) for key in ("x", "y", "index"))


class Recorder(LightningModule):
    """Remembers what it is given. (What Lightning calls epochs and batches after a resume is its own matter.)"""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append((tuple(batch["index"].tolist()), float(batch["x"].sum())))
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        assert len(batch["y"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(folder, data, ckpt_path=None, every=False, **limits):
    model = Recorder()
    saver = ModelCheckpoint(folder, filename="{step}", save_top_k=-1, **({"every_n_train_steps": 1} if every else {}))
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[saver],
        num_sanity_val_steps=0,
        default_root_dir=folder,
        **limits,
    )
    validation = BatchLoader(dataset(), BatchOrder(ALL, 12, shuffle=False))
    trainer.fit(model, data, validation, ckpt_path=ckpt_path, weights_only=True)
    return model.seen


@pytest.mark.filterwarnings("ignore:The dirpath has changed")  # each resumed run writes to a folder of its own
@pytest.mark.parametrize("every", [True, False], ids=["any step", "end of an epoch"])
@pytest.mark.parametrize(
    "limits",
    [{"max_epochs": 3}, {"max_epochs": -1, "max_steps": 8}, {"max_epochs": 3, "limit_train_batches": 2}],
    ids=["epochs", "steps", "limited epochs"],
)
def test_a_run_resumed_from_any_checkpoint_sees_the_batches_it_would_have_seen(tmp_path, limits, every, caplog):
    """Also when it is resumed twice (from inside of an epoch: Lightning 2.6 loses count after resuming at its end)."""
    caplog.set_level(logging.ERROR, logger="lightning.pytorch")  # for this test alone

    def data():
        return BatchLoader(dataset(augmentation=FlipAndCrop()), BatchOrder(np.arange(13), 4, shuffle=True, seed=1))

    whole = fit(tmp_path / "whole", data(), every=every, **limits)
    assert len(whole) in (6, 8, 9)
    for path in sorted((tmp_path / "whole").glob("*.ckpt"))[:-1]:
        step = int(path.stem.removeprefix("step="))
        folder = tmp_path / f"from-{step}"
        assert fit(folder, data(), path, every=every, **limits) == whole[step:]
        for again in sorted(folder.glob("*.ckpt"))[-2:-1] if step == 5 else []:
            rest = whole[int(again.stem.removeprefix("step=")) :]
            assert fit(tmp_path / "again", data(), again, every=every, **limits) == rest


def module(**options):
    data = DigitsDataModule(**options)
    data.setup("fit")
    return data


def test_subsets_are_fixed_disjoint_and_keep_their_index():
    whole, part = module(), module(num_train=100, holdout=30, num_test=20, seed=9, batch_size=7)
    held = {int(i) for batch in part.val_dataloader() for i in batch["index"]}
    assert len(part.train_rows) == 100 and len(held) == 30 and not held & set(part.train_rows)
    assert len(part.test_rows) == 20 == sum(len(batch["y"]) for batch in part.test_dataloader())
    batch = next(iter(part.train_dataloader()))
    assert set(batch["index"].tolist()) <= set(part.train_rows)
    reference = ImageDataset(whole.train_images, whole.normalization())[Draw(0, batch["index"].numpy())]
    assert torch.equal(batch["x"], reference["x"]) and torch.equal(batch["y"], reference["y"])
    assert np.array_equal(module(num_train=100, holdout=30, seed=1).train_rows, part.train_rows)


def test_predictions_come_in_the_order_of_the_files():
    data = module(num_test=20, batch_size=8)
    batches = list(data.predict_dataloader())
    assert [len(batch["y"]) for batch in batches] == [8, 8, 4]
    index = torch.cat([batch["index"] for batch in batches])
    assert index.tolist() == data.test_rows.tolist() == sorted(index.tolist())
    reference = ImageDataset(data.test_images, data.normalization())[Draw(0, index.numpy())]
    assert torch.equal(torch.cat([batch["x"] for batch in batches]), reference["x"])
    assert torch.equal(torch.cat([batch["y"] for batch in batches]), reference["y"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "expected batch_size of at least 1, got 0; give an integer"),
        ({"num_train": 0}, "expected num_train of at least 1, got 0"),
        ({"holdout": -1}, "expected holdout of at least 0, got -1; give an integer"),
        ({"num_workers": -1}, "expected num_workers of at least 0, got -1"),
        ({"num_train": 1438}, "at most the 1437 images that DigitsDataModule has here, got num_train=1438; use fewer"),
        ({"num_train": 1437, "holdout": 1}, "at most the 1437 images .*, got num_train=1437 with holdout=1; use fewer"),
        ({"holdout": 1437}, "at most the 1437 images .*, got num_train=None with holdout=1437; use fewer"),
        ({"num_test": 361}, "at most the 360 images .*, got num_test=361; use fewer"),
    ],
)
def test_bad_numbers(options, message):
    with pytest.raises(ValueError, match=message):
        module(**options)


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(
        ValueError, match=r"expected enough images for batches of 50 on 1 process\(es\), got 20; give more images"
    ):
        module(num_train=20).train_dataloader()


def test_overfit_batches_is_refused(tmp_path):
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        max_epochs=1,
        overfit_batches=1,
        default_root_dir=tmp_path,
    )
    with pytest.raises(
        ValueError, match=r"expected overfit_batches=0, .* got 1; set the data module's num_train instead"
    ):
        trainer.fit(Recorder(), datamodule=DigitsDataModule())

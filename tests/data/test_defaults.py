"""What the data modules of labeled images say about their data sets, and their defaults: the published runs'."""

from inspect import signature

import pytest

from fklit.data import (
    CIFAR10DataModule,
    CIFAR100DataModule,
    DigitsDataModule,
    FashionMNISTDataModule,
    ImageNet32DataModule,
)
from fklit.data.image_batches import FlipAndCrop
from fklit.emoji import EmojiTilesDataModule

KINDS = {
    CIFAR10DataModule: (10, (3, 32, 32), 256),
    CIFAR100DataModule: (100, (3, 32, 32), 256),
    DigitsDataModule: (10, (1, 8, 8), 50),
    FashionMNISTDataModule: (10, (1, 28, 28), 50),
    ImageNet32DataModule: (1000, (3, 32, 32), 256),
    EmojiTilesDataModule: (10, (3, 32, 32), 32),
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_data_modules_state_their_data_and_use_all_of_it(kind):
    classes, shape, batch_size = KINDS[kind]
    data = kind("somewhere")
    assert data.num_classes == classes and data.image_shape == shape and data.batch_size == batch_size
    assert len(data.class_names) in (0, classes) and len(set(data.class_names)) == len(data.class_names)
    assert data.num_train is data.num_test is None
    assert data.holdout == data.seed == data.num_workers == 0
    defaults = {name: value.default for name, value in signature(kind).parameters.items()}
    assert not defaults.get("download") and not defaults.get("standardize") and not defaults.get("skin_tones")
    augmented = kind not in (DigitsDataModule, FashionMNISTDataModule)
    white = 255 if kind is EmojiTilesDataModule else 0
    assert data.augmentation() == (FlipAndCrop(padding=2, fill=white) if augmented else None)
    if augmented:
        assert kind("somewhere", augment=False).augmentation() is None

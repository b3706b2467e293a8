"""Data modules and the data they are made of."""

from typing import TYPE_CHECKING, NoReturn

from fklit.data.cifar import CIFAR10DataModule, CIFAR100DataModule
from fklit.data.digits import DigitsDataModule
from fklit.data.fashion_mnist import FashionMNISTDataModule
from fklit.data.imagenet32 import ImageNet32DataModule
from fklit.data.prompts import PromptDataModule
from fklit.data.simulations import SimulationDataModule

__all__ = [
    "CIFAR10DataModule",
    "CIFAR100DataModule",
    "DigitsDataModule",
    "FashionMNISTDataModule",
    "ImageNet32DataModule",
    "PromptDataModule",
    "SimulationDataModule",
]

if not TYPE_CHECKING:  # type checkers know the names of today

    def __getattr__(name: str) -> NoReturn:
        from fklit.renamed import no_attribute

        raise no_attribute(__name__, name)

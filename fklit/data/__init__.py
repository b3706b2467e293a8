"""Data modules and the data they are made of."""

from fklit.data.cifar import CIFAR10, CIFAR100
from fklit.data.digits import Digits
from fklit.data.emoji_boxes import EmojiBoxes
from fklit.data.emoji_pairs import EmojiPairs
from fklit.data.emoji_scene_data import EmojiScenes
from fklit.data.emoji_tiles import EmojiTiles
from fklit.data.fashion_mnist import FashionMNIST
from fklit.data.imagenet32 import ImageNet32
from fklit.data.prompts import PromptDataModule
from fklit.data.swarms import SwarmDataModule

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "Digits",
    "EmojiBoxes",
    "EmojiPairs",
    "EmojiScenes",
    "EmojiTiles",
    "FashionMNIST",
    "ImageNet32",
    "PromptDataModule",
    "SwarmDataModule",
]

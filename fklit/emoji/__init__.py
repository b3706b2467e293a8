"""The emoji scenes: images with captions, on which the models that ship with fklit are trained and judged."""

from fklit.emoji.boxes import EmojiBoxesDataModule
from fklit.emoji.object_data import EmojiObjectsDataModule
from fklit.emoji.pairs import EmojiPairsDataModule
from fklit.emoji.scene_data import EmojiScenesDataModule
from fklit.emoji.tile_data import EmojiTilesDataModule

__all__ = [
    "EmojiBoxesDataModule",
    "EmojiObjectsDataModule",
    "EmojiPairsDataModule",
    "EmojiScenesDataModule",
    "EmojiTilesDataModule",
]

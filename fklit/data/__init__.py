"""Data modules and the data they are made of."""

from fklit.data.emoji_boxes import EmojiBoxes
from fklit.data.emoji_pairs import EmojiPairs
from fklit.data.emoji_scene_data import EmojiScenes
from fklit.data.prompts import PromptDataModule

__all__ = ["EmojiBoxes", "EmojiPairs", "EmojiScenes", "PromptDataModule"]

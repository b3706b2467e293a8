"""A tiny open_clip folder."""

import pytest
from tiny_clip import write_tiny_clip


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    return write_tiny_clip(tmp_path_factory.mktemp("clip"))

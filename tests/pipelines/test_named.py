"""Tables of pipeline classes hold for a user's subclass under another name, and change nothing for diffusers' own."""

import diffusers
import pytest

from fklit.pipelines import call_rows
from fklit.pipelines.named import is_one_of

TABLES = [value for name, value in vars(call_rows).items() if name.isupper() and isinstance(value, tuple)]
CLASSES = [
    kind
    for name in dir(diffusers)
    if isinstance(kind := getattr(diffusers, name, None), type) and issubclass(kind, diffusers.DiffusionPipeline)
]


@pytest.mark.parametrize("starts", TABLES)
def test_rows_are_found_by_the_class_and_its_bases(starts):
    found = 0
    for kind in CLASSES:
        own = kind.__new__(kind)
        assert is_one_of(own, starts) == kind.__name__.startswith(starts), kind
        renamed = type("Mine", (kind,), {})
        assert is_one_of(renamed.__new__(renamed), starts) == is_one_of(own, starts)
        found += is_one_of(own, starts)
    assert found

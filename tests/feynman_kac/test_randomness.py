"""Generators of groups and their draws, value by value."""

import hashlib

import pytest
import torch

from fklit.feynman_kac import group_generators, normals
from fklit.feynman_kac.randomness import check_generators, uniforms


def _generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_seeds_are_the_first_eight_bytes_of_a_hash_of_seed_group_and_stream() -> None:
    def seed(text: str) -> int:
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")

    assert [g.initial_seed() for g in group_generators(7, 2)] == [seed("7:0:noise"), seed("7:1:noise")]
    assert [g.initial_seed() for g in group_generators(-1, [5, 2], stream="resampling")] == [
        seed("-1:5:resampling"),
        seed("-1:2:resampling"),
    ]
    with pytest.raises(ValueError, match=r"groups=0 is too small"):
        group_generators(0, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normals_are_those_of_torch_row_by_row(dtype: torch.dtype) -> None:
    rows = [torch.randn(4, 3, generator=generator, dtype=dtype) for generator in _generators(1, 2)]
    assert torch.equal(normals(_generators(1, 2), (2, 4, 3), dtype=dtype), torch.stack(rows))
    whole = torch.randn(2, 4, 3, generator=_generators(1)[0], dtype=dtype)
    assert torch.equal(normals(_generators(1)[0], (2, 4, 3), dtype=dtype), whole)


def test_normals_are_float32_unless_told_otherwise() -> None:
    assert normals(None, (1, 2)).dtype == torch.float32


def test_uniforms_are_float64_and_those_of_torch() -> None:
    rows = [torch.rand(5, generator=generator, dtype=torch.float64) for generator in _generators(1, 2)]
    drawn = uniforms(_generators(1, 2), (2, 5))
    assert drawn.dtype == torch.float64 and torch.equal(drawn, torch.stack(rows))


def test_none_is_the_global_generator() -> None:
    torch.manual_seed(3)
    expected = torch.randn(2, 4)
    torch.manual_seed(3)
    assert torch.equal(normals(None, (2, 4)), expected)


def test_draws_move_to_a_device_or_stay() -> None:
    for source in (None, *_generators(0), _generators(0, 1)):
        assert normals(source, (2, 3), device=torch.device("meta")).device.type == "meta"
        assert uniforms(source, (2, 3), device=torch.device("meta")).device.type == "meta"
        assert normals(source, (2, 3)).device.type == "cpu"


def test_a_sequence_becomes_a_list_and_anything_else_is_refused() -> None:
    one, two = _generators(0, 1)
    assert check_generators((one, two), 2) == [one, two]
    assert check_generators(one, 5) is one and check_generators(None, 5) is None
    for wrong in ("ab", 3, [one, 2], {one}):
        with pytest.raises(TypeError, match=r"give a torch\.Generator, a list with one for each group, or None"):
            check_generators(wrong, 2)
    for count in (1, 3):
        with pytest.raises(ValueError, match=rf"expected {count} generators, one a group, got 2"):
            check_generators([one, two], count)

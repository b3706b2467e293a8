"""Distractors: patches that are no object, as a generator draws them, so that models learn not to see one there."""

import numpy as np
import numpy.typing as npt

from fklit.emoji.art import STYLES, EmojiArt, Style
from fklit.emoji.objects import OBJECTS

Pixels = npt.NDArray[np.float32]


def sprite_pixels(art: EmojiArt, name: str, style: Style, size: int) -> Pixels:
    """A sprite as float32 (size, size, 4) in [0, 1]."""
    return np.asarray(art.sprite(name, style, size), dtype=np.float32) / np.float32(255)


def distractor(rng: np.random.Generator, art: EmojiArt, size: int) -> Pixels:
    """A patch (size, size, 4) in [0, 1] that is no object.

    One of: a blend of two objects, half an object, two halves of different objects, an object blurred beyond
    recognition, shuffled tiles of an object, a melted object, a shape between those of two objects, a blob of an
    object's colors, smooth noise.
    """
    style = STYLES[int(rng.integers(len(STYLES)))]
    names = [OBJECTS[int(i)].name for i in rng.choice(len(OBJECTS), 2, replace=False)]
    first, second = (sprite_pixels(art, name, style, size) for name in names)
    kind = int(rng.integers(9))
    if kind == 0:
        share = rng.uniform(0.35, 0.65)
        return _blend(first, second, float(share))
    if kind == 1:
        return _without_half(first, rng)
    if kind == 2:
        joined = first.copy()
        middle = size // 2
        if rng.random() < 0.5:
            joined[:, middle:] = second[:, middle:]
        else:
            joined[middle:] = second[middle:]
        return joined
    if kind == 3:
        return _blur(first, float(rng.uniform(0.14, 0.25)) * size)
    if kind == 4:
        tile = size // int(rng.integers(3, 6))
        tiled = first.copy()
        count = size // tile
        order = rng.permutation(count * count)
        for target, source in enumerate(order):
            row, column = (int(v) * tile for v in divmod(target, count))
            from_row, from_column = (int(v) * tile for v in divmod(int(source), count))
            tiled[row : row + tile, column : column + tile] = first[
                from_row : from_row + tile, from_column : from_column + tile
            ]
        return tiled
    if kind == 5:
        return warp(first, rng, float(rng.uniform(0.3, 0.6)))
    if kind == 6:
        between = first.copy()
        share = float(rng.uniform(0.4, 0.6))
        soft = share * _blur(first, 0.08 * size)[..., 3] + (1 - share) * _blur(second, 0.08 * size)[..., 3]
        between[..., 3] = np.clip((soft - 0.5) * 6 + 0.5, 0, 1)
        between[..., :3] = _blur(first, 0.1 * size)[..., :3]  # so that the new outline is filled
        return between
    mask = _smooth(rng, size, float(rng.uniform(0.1, 0.2)))
    mask = np.clip((mask - 0.5) * 8 + rng.uniform(0.2, 0.8), 0, 1)
    patch = np.empty((size, size, 4), dtype=np.float32)
    if kind == 7:
        solid = first[..., 3] > 0.5
        tone = _smooth(rng, size, 0.2)[..., None]
        one, other = (first[solid][int(rng.integers(solid.sum()))][:3] for _ in range(2))
        patch[..., :3] = tone * one + (1 - tone) * other
    else:
        patch[..., :3] = np.stack([_smooth(rng, size, float(rng.uniform(0.05, 0.2))) for _ in range(3)], axis=-1)
    patch[..., 3] = mask
    return patch


def warp(patch: Pixels, rng: np.random.Generator, amount: float) -> Pixels:
    """Moves the pixels of a patch along smooth random fields, by at most `amount` of its size."""
    size = len(patch)
    row, column = np.mgrid[0:size, 0:size].astype(np.float32)
    scale = float(rng.uniform(0.2, 0.45))
    wanted = [axis + (_smooth(rng, size, scale) - 0.5) * 2 * amount * size for axis in (row, column)]
    place = [np.clip(axis, 0, size - 1.001) for axis in wanted]
    outside = np.maximum(*(np.abs(axis - inside) for axis, inside in zip(wanted, place, strict=True)))
    low = [axis.astype(int) for axis in place]
    share = [(axis - start)[..., None] for axis, start in zip(place, low, strict=True)]
    premultiplied = patch.copy()
    premultiplied[..., :3] *= patch[..., 3:]
    moved = np.zeros_like(patch)
    for down in (0, 1):
        for right in (0, 1):
            weight = (share[0] if down else 1 - share[0]) * (share[1] if right else 1 - share[1])
            moved += weight * premultiplied[low[0] + down, low[1] + right]
    moved *= np.clip(1 - outside, 0, 1)[..., None].astype(np.float32)  # beyond the patch there is nothing
    moved[..., :3] /= np.maximum(moved[..., 3:], 1e-3)
    return moved


def _blend(first: Pixels, second: Pixels, share: float) -> Pixels:
    alpha = share * first[..., 3:] + (1 - share) * second[..., 3:]
    color = share * first[..., 3:] * first[..., :3] + (1 - share) * second[..., 3:] * second[..., :3]
    return np.concatenate([color / np.maximum(alpha, 1e-3), alpha], axis=-1)


def _without_half(sprite: Pixels, rng: np.random.Generator) -> Pixels:
    cut = sprite.copy()
    size = len(sprite)
    keep = int(rng.uniform(0.35, 0.55) * size)
    side = int(rng.integers(4))
    first, last = (keep, size) if side % 2 == 0 else (0, size - keep)
    if side < 2:
        cut[first:last, :, 3] = 0
    else:
        cut[:, first:last, 3] = 0
    return cut


def _kernel(sigma: float) -> Pixels:
    reach = max(int(3 * sigma), 1)
    steps = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (steps / sigma) ** 2)
    return np.asarray(weights / weights.sum(), dtype=np.float32)


def _blur(patch: Pixels, sigma: float) -> Pixels:
    premultiplied = patch.copy()
    premultiplied[..., :3] *= patch[..., 3:]
    weights = _kernel(sigma)
    for axis in (0, 1):
        moved = np.moveaxis(premultiplied, axis, -1)
        padded = np.pad(moved, [(0, 0)] * (moved.ndim - 1) + [(len(weights) // 2,) * 2])
        windows = np.lib.stride_tricks.sliding_window_view(padded, len(weights), axis=-1)
        premultiplied = np.moveaxis(windows @ weights, -1, axis)
    premultiplied[..., :3] /= np.maximum(premultiplied[..., 3:], 1e-3)
    return np.asarray(premultiplied, dtype=np.float32)


def _smooth(rng: np.random.Generator, size: int, scale: float) -> Pixels:
    coarse = rng.random((max(int(1 / scale), 2) + 1,) * 2).astype(np.float32)
    at = np.linspace(0, len(coarse) - 1.001, size)
    low = at.astype(int)
    share = (at - low).astype(np.float32)
    rows = coarse[low] * (1 - share[:, None]) + coarse[low + 1] * share[:, None]
    return np.asarray(rows[:, low] * (1 - share) + rows[:, low + 1] * share, dtype=np.float32)

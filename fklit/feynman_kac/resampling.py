"""Six unbiased resamplers: `resampler(log_weights (B, K), generators) -> ancestors (B, K)`.

All groups are resampled at once and never mix. Every scheme draws particle `i` on average `K * W_i` times, where `W`
are the normalized weights; they differ in the spread of the counts `n_i`:

============  =========================================  ==========================================================
scheme        counts                                     source
============  =========================================  ==========================================================
multinomial   binomial                                   Gordon, Salmond and Smith 1993
residual      at least `floor(K W_i)`                    Liu and Chen 1998
stratified    within 2 of `K W_i`                        Kitagawa 1996
systematic    `floor(K W_i)` or `ceil(K W_i)`            Carpenter, Clifford and Fearnhead 1999
ssp           `floor(K W_i)` or `ceil(K W_i)`,           Srinivasan 2001; Gerber, Chopin and Whiteley 2019
              negatively associated
birth_death   1, 0 if killed, and its heirs              Del Moral and Miclo 2000 (jump processes)
============  =========================================  ==========================================================

A particle of weight zero is never drawn. All but `multinomial` leave a surviving particle in its own slot and
put the further copies into the slots of those that died, so that what is cached per slot stays valid;
`multinomial` returns `torch.multinomial`'s draws as they are.
"""

from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Int64
from torch import Tensor

from fklit.feynman_kac.checks import check_choice, check_matrix
from fklit.feynman_kac.randomness import Generators, check_generators, uniforms
from fklit.feynman_kac.weights import DegenerateGroupError, InvalidWeightError, as_float64

ResamplerName = Literal["systematic", "multinomial", "stratified", "residual", "ssp", "birth_death"]


@runtime_checkable
class Resampler(Protocol):
    """Draws ancestors in proportion to weights."""

    def __call__(self, log_weights: Tensor, generators: Generators = None, /) -> Tensor:
        """Return ancestors, int64, shape (B, K), values in [0, K), for log-weights of shape (B, K)."""
        ...


def multinomial(log_weights: Tensor, generators: Generators = None, /) -> Int64[Tensor, "B K"]:
    """Draw K ancestors independently: exactly `torch.multinomial(weights, K, replacement=True)` on the same generator.

    Args:
        log_weights: shape (B, K), unnormalized; `-inf` is never drawn.
        generators: one generator, one for each group, or None for torch's global one.

    Raises:
        InvalidWeightError: for NaN or `+inf`.
        DegenerateGroupError: if a group has no particle of positive weight.
    """
    weights = _weights(log_weights)
    num_groups, num_particles = weights.shape
    generators = check_generators(generators, num_groups)
    if generators is None or isinstance(generators, torch.Generator):
        source = weights.device if generators is None else generators.device
        drawn = torch.multinomial(weights.to(source), num_particles, replacement=True, generator=generators)
        ancestors = drawn.to(weights.device)
    else:
        rows = [
            torch.multinomial(row.to(generator.device), num_particles, replacement=True, generator=generator)
            for row, generator in zip(weights, generators, strict=True)
        ]
        ancestors = torch.stack([row.to(weights.device) for row in rows])
    # A uniform of exactly 0 would pick slot 0 even if its weight is zero.
    return _nearest_positive(weights).gather(1, ancestors)


def stratified(log_weights: Tensor, generators: Generators = None, /) -> Int64[Tensor, "B K"]:
    """Draw one point in each of K equal strata of the cumulative weights.

    Args, Raises: as for `multinomial`.
    """
    weights = _weights(log_weights)
    num_particles = weights.shape[1]
    points = uniforms(generators, weights.shape, device=weights.device)
    position = _cumulative(weights) * num_particles
    # The points below c are those of the strata that end before c, and the one in c's own stratum if it lies below.
    stratum = position.floor().clamp(max=num_particles - 1)
    below = stratum + (points.gather(1, stratum.long()) < position - stratum)
    return _ancestors_from_cumulative_counts(below, position)


def systematic(log_weights: Tensor, generators: Generators = None, /) -> Int64[Tensor, "B K"]:
    """Draw K equally spaced points with one common uniform offset.

    Args, Raises: as for `multinomial`.
    """
    weights = _weights(log_weights)
    offset = uniforms(generators, (weights.shape[0], 1), device=weights.device)
    position = _cumulative(weights).mul_(weights.shape[1])
    return _ancestors_from_cumulative_counts((position - offset).ceil_(), position)


def residual(log_weights: Tensor, generators: Generators = None, /) -> Int64[Tensor, "B K"]:
    """Copy every particle `floor(K W)` times and draw the rest from the remainders independently.

    Args, Raises: as for `multinomial`.
    """
    weights = _weights(log_weights)
    num_particles = weights.shape[1]
    points = uniforms(generators, weights.shape, device=weights.device)
    counts, remainders = _whole_and_remainder(weights)
    missing = num_particles - counts.sum(dim=1, keepdim=True)
    drawn = torch.searchsorted(_cumulative(remainders), points, right=True).clamp(max=num_particles - 1)
    wanted = torch.arange(num_particles, device=weights.device) < missing
    return ancestors_from_counts(counts.scatter_add(1, drawn, wanted.long()))


def ssp(log_weights: Tensor, generators: Generators = None, /) -> Int64[Tensor, "B K"]:
    """Round `K W` up or down at random, by pairwise trades of the remainders in a binary tree (SSP resampling).

    Two remainders trade until one of them is 0 or 1, keeping their sum and both means; the other meets the winner of
    the next pair. A tournament needs `log2(K)` vectorized rounds and K trades in all.

    Args, Raises: as for `multinomial`.
    """
    weights = _weights(log_weights)
    num_groups, num_particles = weights.shape
    counts, open_remainders = _whole_and_remainder(weights)
    missing = num_particles - counts.sum(dim=1, keepdim=True)
    rounds = _tournament_sizes(num_particles)
    points = uniforms(generators, (num_groups, sum(rounds)), device=weights.device)
    slots = torch.arange(num_particles, device=weights.device).expand(num_groups, num_particles)
    whole = counts
    for point in torch.split(points, rounds, dim=1):
        if open_remainders.shape[1] % 2:  # the odd one out meets a remainder of zero and passes unchanged
            open_remainders = torch.nn.functional.pad(open_remainders, (0, 1))
            slots = torch.nn.functional.pad(slots, (0, 1))
        first, second = open_remainders[:, 0::2], open_remainders[:, 1::2]
        total = first + second
        over = total >= 1
        # Below 1 one of the two takes all; from 1 on one of the two takes a whole and the other keeps the rest.
        chance = torch.where(over, 1 - second, first) / torch.where(over, 2 - total, total.clamp(min=1e-300))
        first_gains = point < chance
        gainer = torch.where(first_gains, slots[:, 0::2], slots[:, 1::2])
        other = torch.where(first_gains, slots[:, 1::2], slots[:, 0::2])
        whole = whole.scatter_add(1, gainer, over.long())
        slots = torch.where(over, other, gainer)
        open_remainders = torch.where(over, total - 1, total)
    # The last remainder is 0 or 1 up to rounding: it is what is still missing.
    missing = num_particles - whole.sum(dim=1, keepdim=True) if rounds else missing
    return ancestors_from_counts(whole.scatter_add(1, slots, missing))


def birth_death(log_weights: Tensor, generators: Generators = None, /) -> Int64[Tensor, "B K"]:
    """Kill particles below the mean weight and let those above it inherit their slots, as a jump process does.

    With `r_i = K W_i`, particle i dies with probability `1 - r_i` where that is positive, and the slot of each dead one
    goes to a particle drawn in proportion to `r_j - 1` where that is positive. The mean count is `r_i` exactly, for
    weights of any size; as steps shrink this becomes the birth-death process of the weight rate. Weights that hardly
    differ hardly move anyone, so that it may run at every step: few die, but the counts of large weights vary more
    than `systematic`'s.

    Args, Raises: as for `multinomial`.
    """
    weights = _weights(log_weights)
    num_groups, num_particles = weights.shape
    points = uniforms(generators, (num_groups, 2, num_particles), device=weights.device)
    excess = weights * num_particles - 1
    dies = points[:, 0] < -excess
    gains = excess.clamp(min=0.0)
    # Equal weights up to rounding: nobody gains, and nobody can have died but by rounding.
    dies = dies & (gains.sum(dim=1, keepdim=True) > 0)
    heirs = torch.searchsorted(_cumulative(gains), points[:, 1].contiguous(), right=True).clamp(max=num_particles - 1)
    slots = torch.arange(num_particles, device=weights.device).expand_as(heirs)
    return torch.where(dies, heirs, slots)


def draw_few(log_weights: Tensor, number: int, generators: Generators = None) -> Int64[Tensor, "B n"]:
    """Draw a few particles of each group by equally spaced points; the mean of a group's draws has the weights' law.

    Args:
        log_weights: (B, K), as for `multinomial`.
        number: n, particles to draw.
        generators: as for `multinomial`.
    """
    weights = _weights(log_weights)
    offset = uniforms(generators, (weights.shape[0], 1), device=weights.device)
    points = (offset + torch.arange(number, device=weights.device)) / number
    places = torch.searchsorted(_cumulative(weights), points, right=True).clamp(max=weights.shape[1] - 1)
    return _nearest_positive(weights).gather(1, places)


def ancestors_from_counts(counts: Tensor) -> Int64[Tensor, "B K"]:
    """Return ancestors in which particle `i` occurs `counts[b, i]` times and every survivor stays in its own slot.

    Args:
        counts: integers of at least 0, shape (B, K), each row summing to K.

    Raises:
        ValueError: if a row does not sum to K.
    """
    check_matrix("counts", counts)
    num_particles = counts.shape[1]
    if bool((counts < 0).any()) or bool((counts.sum(dim=1) != num_particles).any()):
        raise ValueError(
            f"counts must not be negative and must sum to {num_particles} in every row; check the resampler."
        )
    return _placed(counts)


def keep_survivors_in_place(ancestors: Tensor) -> Int64[Tensor, "B K"]:
    """Reorder ancestors within each group so that the first copy of every survivor stays in its own slot.

    Args:
        ancestors: int64, shape (B, K), values in [0, K).
    """
    check_matrix("ancestors", ancestors)
    counts = torch.zeros_like(ancestors).scatter_add(1, ancestors, torch.ones_like(ancestors))
    return ancestors_from_counts(counts)


def _placed(counts: Tensor) -> Tensor:
    """Return `ancestors_from_counts` of counts that are known to be right."""
    num_particles = counts.shape[1]
    slots = torch.arange(num_particles, device=counts.device).expand(counts.shape).contiguous()
    # In each row there are as many further copies as empty slots, so the flat lists of both line up group by group.
    if counts.device.type != "cpu":
        copies = torch.repeat_interleave(slots.flatten(), (counts - 1).clamp(min=0).flatten())
        return slots.masked_scatter(counts == 0, copies)
    # On a CPU only the slots that change are touched, by the views of NumPy: a fifth of the time.
    flat, found = counts.contiguous().numpy().ravel(), slots.numpy().ravel()
    parents = (flat > 1).nonzero()[0]
    found[(flat == 0).nonzero()[0]] = (parents % num_particles).repeat(flat[parents] - 1)
    return slots


def _weights(log_weights: Tensor) -> Tensor:
    """Return normalized weights, float64, after checking that each group has something to draw."""
    check_matrix("log_weights", log_weights)
    values = as_float64(log_weights)
    peak = values.amax(dim=1, keepdim=True)  # NaN wherever a NaN is
    if bool((torch.isnan(peak) | (peak == torch.inf)).any()):
        raise InvalidWeightError(
            "log_weights contain NaN or +inf; a log-weight is finite, or -inf for a dead particle."
        )
    if bool((peak == -torch.inf).any()):
        raise DegenerateGroupError(
            "log_weights of a group are all -inf; a group needs one particle of positive weight."
        )
    weights = (values - peak).exp_()
    return weights.div_(weights.sum(dim=1, keepdim=True))


def _cumulative(weights: Tensor) -> Tensor:
    """Return cumulative weights that never decrease, are flat over zero weights and end at exactly 1.

    A parallel cumulative sum may wobble in the last bit, also across zero weights; the running maximum over the
    positive ones removes that, and division by the last value makes the last positive weight reach 1 exactly.
    """
    sums = weights.cumsum(dim=1)
    if sums.device.type != "cpu":  # whose sums are sequential, so they are flat and monotone already
        sums = torch.where(weights > 0, sums, torch.zeros_like(sums)).cummax(dim=1).values
    total = sums[:, -1:].clone()
    return sums.div_(torch.where(total > 0, total, torch.ones_like(total)))


def _ancestors_from_cumulative_counts(below: Tensor, position: Tensor) -> Tensor:
    """Return ancestors from how many points lie below the end of each particle's share.

    Args:
        below: float64, (B, K), overwritten.
        position: ends of the shares, the last of positive weight at exactly K.
    """
    num_particles = position.shape[1]
    below.clamp_(0, num_particles).masked_fill_(position >= num_particles, num_particles)
    ends = below.long()
    counts = ends.clone()
    counts[:, 1:] -= ends[:, :-1]
    return _placed(counts)


def _whole_and_remainder(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return `floor(K W)` as integers and the remainders in [0, 1)."""
    expected = weights * weights.shape[1]
    # 49 * (1 / 49) is just below 1 in float64: its floor must be 1, or equal weights would be drawn anew.
    nearest = expected.round()
    short = (nearest > expected) & (nearest - expected < 1e-10 * nearest)
    whole = torch.where(short, nearest, expected.floor())
    return whole.long(), (expected - whole).clamp(min=0.0)


def _nearest_positive(weights: Tensor) -> Tensor:
    """Return for each slot the first slot of positive weight at or after it, or else the last one before it."""
    num_particles = weights.shape[1]
    slots = torch.arange(num_particles, device=weights.device).expand(weights.shape)
    positive = weights > 0
    after = torch.where(positive, slots, torch.full_like(slots, num_particles)).flip(1).cummin(dim=1).values.flip(1)
    last = torch.where(positive, slots, torch.full_like(slots, -1)).amax(dim=1, keepdim=True)
    return torch.minimum(after, last)


def _tournament_sizes(num_particles: int) -> list[int]:
    """Return the number of pairs in each round until one is left."""
    sizes = []
    while num_particles > 1:
        num_particles = (num_particles + 1) // 2
        sizes.append(num_particles)
    return sizes


def get_resampler(name: "str | Resampler") -> Resampler:
    """Return the resampler called `name`; a function is returned as it is.

    Args:
        name: "systematic", "multinomial", "stratified", "residual", "ssp" or "birth_death", or a `Resampler`.

    Raises:
        ValueError: for another name.
    """
    if callable(name):
        return name
    table: dict[str, Resampler] = {
        "systematic": systematic,
        "multinomial": multinomial,
        "stratified": stratified,
        "residual": residual,
        "ssp": ssp,
        "birth_death": birth_death,
    }
    check_choice("resampler", name, tuple(table))
    return table[name]

"""The bound on the negative log-likelihood that masked diffusion is trained on, over times or over counts."""

from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from fklit.text.noise_schedule import NoiseSchedule


class MaskedDenoiser(Protocol):
    """What predicts masked tokens, such as a `DiffusionTransformer`."""

    def __call__(self, tokens: Tensor, at: Tensor, /) -> Tensor:
        """Logits (m, v) of the m positions `tokens[at]`.

        Args:
            tokens: Ids (n, l), the mask's where the token is not known.
            at: (n, l) bool.
        """
        ...


def stratified_times(number: int, *, generator: torch.Generator | None = None) -> Float[Tensor, " number"]:
    """Times in (0, 1], one in each of `number` equal parts in random order, float64.

    Each is uniform, and together they cover the interval, so that a batch's mean varies less (Kingma et al. 2021,
    arXiv:2107.00630, appendix I.1).

    Args:
        number: At least 1.
        generator: Of the draws; torch's global one if not given.
    """
    parts = torch.randperm(number, generator=generator)
    inside = torch.rand(number, dtype=torch.float64, generator=generator)
    return 1 - (parts + inside) / number


def stratified_counts(lengths: Int64[Tensor, " n"], *, generator: torch.Generator | None = None) -> Int64[Tensor, " n"]:
    """Numbers of tokens to mask, from 1 to the length of each text, spread over these as `stratified_times` are.

    Args:
        lengths: Tokens of each text that may be masked; the number is 0 where there are none.
        generator: Of the draws; torch's global one if not given.
    """
    times = stratified_times(len(lengths), generator=generator).to(lengths.device, torch.float32)
    return (times * lengths).ceil().long().clamp(min=1).minimum(lengths)


def masked_loss(
    denoiser: MaskedDenoiser, tokens: Int64[Tensor, "n l"], masked: Bool[Tensor, "n l"], *, mask: int
) -> Float[Tensor, "n l"]:
    """`-log p(token | the tokens that are not masked)` in nats at masked positions, 0 elsewhere; float32.

    Args:
        denoiser: What predicts.
        tokens: The text.
        masked: Positions that the denoiser does not see.
        mask: Id of the mask, which is never predicted.
    """
    logits = denoiser(torch.where(masked, mask, tokens), masked).float()
    excluded = torch.arange(logits.shape[-1], device=logits.device) == mask
    losses = F.cross_entropy(logits.masked_fill(excluded, -torch.inf), tokens[masked], reduction="none")
    return torch.zeros(tokens.shape, dtype=losses.dtype, device=tokens.device).masked_scatter(masked, losses)


def nelbo_at_times(
    denoiser: MaskedDenoiser,
    tokens: Int64[Tensor, "n l"],
    times: Float[Tensor, " n"],
    schedule: NoiseSchedule,
    *,
    mask: int,
    given: Bool[Tensor, "n l"] | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " n"]:
    """One draw of the continuous-time NELBO of each text, nats (Sahoo et al. 2024, eq. 10).

    Its mean over uniform times and masks bounds `-log p(text)` from above.

    Args:
        denoiser: What predicts.
        tokens: The texts.
        times: One for each, in (0, 1].
        schedule: Of the noise.
        mask: Id of the mask.
        given: Positions that are never masked, such as a condition: the bound is on the others given these.
        generator: Of which tokens are masked, on the device of `tokens`; torch's global one if not given.
    """
    alpha = schedule.alpha(times).to(tokens.device, torch.float32)
    draws = torch.rand(tokens.shape, device=tokens.device, generator=generator)
    masked = draws >= alpha[:, None]
    if given is not None:
        masked &= ~given
    losses = masked_loss(denoiser, tokens, masked, mask=mask).sum(dim=1)
    return losses * schedule.weight(times).to(losses)


def nelbo_at_counts(
    denoiser: MaskedDenoiser,
    tokens: Int64[Tensor, "n l"],
    counts: Int64[Tensor, " n"],
    *,
    mask: int,
    given: Bool[Tensor, "n l"] | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " n"]:
    """One draw of the same NELBO from a number of masked tokens instead of a time, nats.

    For a denoiser that is not told the time, the integral over times is a sum over how many tokens are masked, each
    number as probable as any other: `E_k [l / k sum over k masked tokens]` with k uniform in 1 .. l (as for models of
    any order; Hoogeboom et al. 2022, arXiv:2110.02037). It holds for every schedule and varies much less.

    Args:
        denoiser: What predicts.
        tokens: The texts.
        counts: How many tokens of each are masked, from 1 to l, or to how many are not given; uniform ones for an
            unbiased estimate. 0 for a text that is given whole, whose bound is 0.
        mask: Id of the mask.
        given: Positions that are never masked, as in `nelbo_at_times`.
        generator: Of which tokens are masked, on the device of `tokens`; torch's global one if not given.
    """
    length: int | Tensor = tokens.shape[1]
    draws = torch.rand(tokens.shape, device=tokens.device, generator=generator)
    if given is not None:
        # They come last, after all that are drawn below 1.
        draws, length = draws.masked_fill(given, 2.0), (~given).sum(dim=1)
    ranks = draws.argsort(dim=1).argsort(dim=1)
    masked = ranks < counts[:, None].to(tokens.device)
    losses = masked_loss(denoiser, tokens, masked, mask=mask).sum(dim=1)
    return losses * (length / counts.to(losses).clamp(min=1))

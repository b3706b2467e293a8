"""Masked diffusion one site a step: the jumps of the process without its times, so without an error of steps.

The masked process unmasks its sites in an order that is uniform among all. An expert's law of an order and a sequence
is `1 / L!` times the product of `p(v | x)` at every site in that order; the product of experts has the weight
`sum_v prod_i p_i(v | x)^beta_i` at every site on its way. A step draws the site, too, by that weight: its incremental
weight is then the mean of the weight over the sites that are still masked, and no time and no step size is left in it.
"""

import math

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from fklit.feynman_kac.randomness import Generators, uniforms


def unmask_one(
    masked: Bool[Tensor, "B K L"], combined: Float64[Tensor, "B K L V"], generator: Generators
) -> tuple[Float64[Tensor, "B K"], Int64[Tensor, "B K"], Int64[Tensor, "B K"]]:
    """Draw a masked site and its token.

    Args:
        masked: Masked sites; as many in every particle, at least one.
        combined: `sum_i beta_i log p_i(v | x)`.
        generator: One, or one for each group.

    Returns:
        The log weight of the step, `log (1 / n) sum over n masked sites of sum_v prod_i p_i(v | x)^beta_i`; the site;
        its token. Where no site has a token with a probability the weight is `-inf`, and the token means nothing.
    """
    log_normalizer = torch.logsumexp(combined, dim=-1).masked_fill(~masked, -math.inf)
    weight = torch.logsumexp(log_normalizer, dim=-1) - masked.sum(dim=-1).double().log()
    points = uniforms(generator, (*masked.shape[:2], 2), device=masked.device)
    site = _drawn(torch.softmax(log_normalizer, dim=-1), points[..., 0])
    rows = combined.gather(2, site[..., None, None].expand(-1, -1, 1, combined.shape[-1])).squeeze(2)
    return weight, site, _drawn(torch.softmax(rows, dim=-1), points[..., 1])


def _drawn(shares: Float64[Tensor, "B K n"], points: Float64[Tensor, "B K"]) -> Int64[Tensor, "B K"]:
    """Index drawn by shares, with a uniform number; never one of share 0, and 0 for shares that are no numbers."""
    edges = shares.cumsum(dim=-1)
    found = torch.searchsorted(edges, (points * edges[..., -1]).unsqueeze(-1), right=True).squeeze(-1)
    # A number that rounds up to the sum would be past the last share that is not 0
    last = (shares > 0).long() * torch.arange(shares.shape[-1], device=shares.device)
    return torch.minimum(found, last.amax(dim=-1))

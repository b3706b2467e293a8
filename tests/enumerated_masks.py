"""A masked model whose predictions are those of a joint law that can be enumerated."""

import itertools

import torch

from fklit.correctors import MaskedPath

PATH = MaskedPath(mask=4, length=3)


class Enumerated:
    """Exact conditionals of a joint law over three tokens of four values."""

    def __init__(self, seed: int, path: MaskedPath) -> None:
        self.path = path
        generator = torch.Generator().manual_seed(seed)
        self.law = torch.softmax(0.8 * torch.randn(4, 4, 4, generator=generator, dtype=torch.float64).flatten(), dim=0)
        self.states = torch.tensor(list(itertools.product(range(4), repeat=3)))
        observed = torch.tensor(list(itertools.product(range(5), repeat=3)))
        agree = ((observed[:, None] == self.states) | (observed[:, None] == 4)).all(dim=2)
        one_hot = torch.nn.functional.one_hot(self.states, 4).double()
        joint = torch.einsum("os,slv->olv", agree * self.law, one_hot)
        self.table = (joint / joint.sum(dim=2, keepdim=True)).clamp(min=1e-300).log()

    def log_probs(self, tokens, t):
        return self.table[(tokens * torch.tensor([25, 5, 1])).sum(dim=-1)]


def distance(law, gamma):
    return 0.5 * float((law - gamma / gamma.sum()).abs().sum())

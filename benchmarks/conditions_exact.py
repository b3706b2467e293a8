"""When weights help a product of two conditions: exact laws of a masked chain whose conditions are more or less sharp.

    python benchmarks/conditions_exact.py --output docs/results/conditions_exact.json

Texts of five symbols C, N and O have a random law p(x). A condition is "at least so many N" (or O), and its expert
knows p(x | condition) exactly, for a condition that is right with probability 1 - error: p(condition | x) is 1 - error
where x meets it, and error elsewhere. Target: p(x | first) p(x | second) / p(x). The heuristic sampler unmasks one
place after the other in random order from the normalized product of the three predictions. Its law is added up over all
orders and texts; nothing is sampled and nothing is trained.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fklit.atomic import write_json_atomically

LENGTH, SYMBOLS = 5, 3
TEXTS = torch.tensor(list(itertools.product(range(SYMBOLS), repeat=LENGTH)))
MASK = -1
State = tuple[int, ...]


def conditioned(law: Tensor, met: Tensor, error: float) -> Tensor:
    """The law of all texts under a condition.

    Args:
        law: p(x), (243,).
        met: Texts that meet the condition, (243,) bool.
        error: Probability that the condition is wrong.
    """
    joint = law * torch.where(met, 1 - error, error)
    return joint / joint.sum()


def predictions(law: Tensor, state: State, place: int) -> Tensor:
    """p(symbol at a masked place | the symbols that are known), (3,).

    Args:
        law: Of all texts.
        state: Symbols, `MASK` where they are not known.
        place: A masked one.
    """
    fits = torch.ones(len(TEXTS), dtype=torch.bool)
    for at, symbol in enumerate(state):
        if symbol != MASK:
            fits &= TEXTS[:, at] == symbol
    found = torch.stack([law[fits & (TEXTS[:, place] == symbol)].sum() for symbol in range(SYMBOLS)])
    return found / found.sum() if found.sum() > 0 else torch.full_like(found, 1 / SYMBOLS)


def heuristic(base: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Law of what the heuristic sampler makes, (243,). Where no symbol is left it takes each alike.

    Args:
        base: p(x).
        first: p(x | first condition).
        second: p(x | second condition).
    """
    reached: dict[State, float] = {(MASK,) * LENGTH: 1.0}
    for known in range(LENGTH):
        after: dict[State, float] = {}
        for state, probability in reached.items():
            for place in (at for at in range(LENGTH) if state[at] == MASK):
                parts = (predictions(law, state, place) for law in (first, second, base))
                product = next(parts) * next(parts) / next(parts).clamp(min=1e-300)
                total = float(product.sum())
                shares = (product / total).tolist() if total > 0 else [1 / SYMBOLS] * SYMBOLS
                for symbol, share in enumerate(shares):
                    if share > 0:
                        text = (*state[:place], symbol, *state[place + 1 :])
                        after[text] = after.get(text, 0.0) + probability * share / (LENGTH - known)
        reached = after
    return torch.tensor([reached.get(tuple(text), 0.0) for text in TEXTS.tolist()], dtype=torch.float64)


def measured(nitrogens: int, oxygens: int, error: float) -> dict[str, Any]:
    """Shares of the texts that meet both conditions, and the distance between target and heuristic.

    Args:
        nitrogens: At least so many, the first condition.
        oxygens: At least so many, the second.
        error: Of both.
    """
    generator = torch.Generator().manual_seed(1)
    base = torch.softmax(torch.randn(len(TEXTS), generator=generator, dtype=torch.float64), 0)
    met = [(TEXTS == 1).sum(dim=1) >= nitrogens, (TEXTS == 2).sum(dim=1) >= oxygens]
    first, second = (conditioned(base, one, error) for one in met)
    target = first * second / base
    target /= target.sum()
    found, both = heuristic(base, first, second), met[0] & met[1]
    shares = {name: float(law[both].sum()) for name, law in (("base", base), ("heuristic", found), ("target", target))}
    settings = {"nitrogens": nitrogens, "oxygens": oxygens, "error": error}
    return settings | shares | {"total_variation": float((found - target).abs().sum() / 2)}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: a row for each pair of conditions and error."""
    lines = ["| conditions | error of each | without | heuristic | target |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        shares = " | ".join(f"{row[name]:.2f}" for name in ("base", "heuristic", "target"))
        lines.append(f"| N ≥ {row['nitrogens']}, O ≥ {row['oxygens']} | {row['error']:g} | {shares} |")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Add up, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--errors", type=float, nargs="+", default=[0.0, 0.02, 0.1, 0.3])
    parser.add_argument("--output", type=Path, default=None, help="JSON file")
    given = parser.parse_args(words)
    torch.set_num_threads(1)
    rows = [measured(*pair, error) for pair in ((2, 2), (2, 3)) for error in given.errors]
    print(table(rows))
    if given.output is not None:
        write_json_atomically(given.output, rows, indent=1)
    return rows


if __name__ == "__main__":
    main()

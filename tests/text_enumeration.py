"""A second reading of the text pipelines' samplers, in plain Python: every draw of a step, with its probability."""

import itertools
from collections import defaultdict

import torch


def masked_step(probs, tokens, *, mask, number, threshold, editing, given):
    """Blocks after a step of block refinement with masks, with their probabilities.

    Args:
        probs: Lists (L, V), of the token drawn at each position.
        tokens: The block.
    """
    places, size = range(len(tokens)), len(probs[0])
    masked = [i for i in places if tokens[i] == mask]
    editable = [i for i in places if tokens[i] != mask and not given[i]] if editing else []
    found = defaultdict(float)
    for values in itertools.product(range(size), repeat=len(masked) + len(editable)):
        drawn = dict(zip(masked + editable, values, strict=True))
        weight, sure = 1.0, {}
        for i, v in drawn.items():
            weight *= probs[i][v]
            sure[i] = probs[i][v]
        confident = [i for i in masked if sure[i] > threshold]
        chosen = confident if len(confident) >= number else sorted(masked, key=lambda i: -sure[i])[:number]
        chosen = [*chosen, *(i for i in editable if sure[i] > editing and drawn[i] != tokens[i])]
        new = tuple(drawn[i] if i in chosen else tokens[i] for i in places)
        found[new, any(i in editable for i in chosen)] += weight
    return found


def llada2_law(logits_of, start, *, blocks, length, steps, mask, eos, threshold, editing, post, given):
    """The law of the tokens of a whole call with one row.

    Args:
        logits_of: Function of tokens (a tuple up to the window's end) that returns logits (window, V).
        start: Tokens with masks.
        blocks: Numbers of the blocks to fill.
        length: Of a block.
        steps: With masks, for each block.
        given: Length of the prompt.
    """
    schedule = [length // steps + (i < length % steps) for i in range(steps)]
    law = {(tuple(start), False): 1.0}
    for block in blocks:
        first, last = block * length, (block + 1) * length
        fixed = [i < given for i in range(first, last)]
        # A state in a block: tokens, finished, steps with masks, steps without.
        states = {(tokens, done, 0, 0): p for (tokens, done), p in law.items()}
        law = defaultdict(float)
        while states:
            following = defaultdict(float)
            for (tokens, done, step, extra), p in states.items():
                if done:
                    law[tokens, True] += p
                    continue
                here = tokens[first:last]
                open_ = mask in here
                extra += not open_
                probs = torch.softmax(logits_of(tokens[:last])[first:last].float(), -1).double()
                probs = (probs / probs.sum(-1, keepdim=True)).tolist()
                number = schedule[min(step, steps - 1)] if open_ else 0
                options = masked_step(
                    probs, here, mask=mask, number=number, threshold=threshold, editing=editing, given=fixed
                )
                for (new, edited), q in options.items():
                    after = tokens[:first] + new + tokens[last:]
                    wrote_end = eos is not None and any(a != b and b == eos for a, b in zip(here, new, strict=True))
                    ends = wrote_end and mask not in after[given : given + after[given:].index(eos)]
                    count = step + open_
                    goes_on = not ends and (count < steps if open_ else bool(editing) and edited and extra <= post)
                    if goes_on:
                        following[after, False, count, extra] += p * q
                    else:
                        law[after, ends] += p * q
            states = following
    total = defaultdict(float)
    for (tokens, _), p in law.items():
        total[tokens] += p
    return total


def refined_step(logits, canvas, committed, *, step, steps, temperature, threshold, editing):
    """Canvases and committed positions after a step of block refinement without masks; random tokens summed out."""
    plain = torch.softmax(logits.float(), -1).double()
    if temperature:
        scaled = torch.softmax(logits.float() / temperature, -1).double()
        probs = sure = (scaled / scaled.sum(-1, keepdim=True)).tolist()
    else:
        probs = torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).tolist()
        sure = plain.tolist()
    places, size = range(len(canvas)), logits.shape[-1]
    found = defaultdict(float)
    for drawn in itertools.product(range(size), repeat=len(canvas)):
        weight = 1.0
        for i in places:
            weight *= probs[i][drawn[i]]
        if not weight:
            continue
        free = [i for i in places if not committed[i]]
        owed = max(0, -(-(step + 1) * len(canvas) // steps) - sum(committed))
        ranked = sorted(free, key=lambda i: -sure[i][drawn[i]])
        new = {i for i in free if i in ranked[:owed] or sure[i][drawn[i]] > threshold}
        edits = {
            i for i in places
            if committed[i] and editing is not None and drawn[i] != canvas[i] and sure[i][drawn[i]] > editing
        }  # fmt: skip
        kept = [drawn[i] if i in new | edits else canvas[i] if committed[i] else None for i in places]
        now = tuple(bool(committed[i]) or i in new for i in places)
        _spread(found, kept, now, weight, size)
    return found


def posterior_step(logits, canvas, *, step, steps, temperature):
    """Canvases after a step of discrete DDIM: every draw, every route, every random token."""
    before, after = step / steps, (step + 1) / steps
    survival, size = before / after, logits.shape[-1]
    if temperature:
        probs = torch.softmax(logits.double() / temperature, -1).tolist()
    else:
        probs = torch.nn.functional.one_hot(logits.argmax(-1), size).tolist()
    places = []
    for i, present in enumerate(canvas):
        law = [0.0] * size
        for v, p in enumerate(probs[i]):
            routes = [
                after * (1 - survival) / size + survival * after * (v == present),
                survival * (1 - after) / size,
                (1 - survival) * (1 - after) / size,
            ]
            total = sum(routes)
            law[v] += p * routes[0] / total
            law[present] += p * routes[1] / total
            for w in range(size):
                law[w] += p * routes[2] / total / size
        places.append(law)
    return _product(places)


def accepted_step(logits, *, step, steps, bound, t_max, t_min):
    """Canvases after a step of entropy-bounded acceptance."""
    size = logits.shape[-1]
    temperature = t_min + (t_max - t_min) * (steps - step) / steps
    probs = torch.softmax(logits.double() / temperature, -1)
    entropies = -(probs * probs.log()).sum(-1)
    order = sorted(range(len(entropies)), key=lambda i: float(entropies[i]))
    accepted, total = set(), 0.0
    for i in order:
        if total <= bound:
            accepted.add(i)
        total += float(entropies[i])
    return _product([probs[i].tolist() if i in accepted else [1 / size] * size for i in range(len(entropies))])


def _product(places):
    found = {}
    for values in itertools.product(range(len(places[0])), repeat=len(places)):
        weight = 1.0
        for i, v in enumerate(values):
            weight *= places[i][v]
        found[values, None] = weight
    return found


def _spread(found, kept, now, weight, size):
    blank = [i for i, v in enumerate(kept) if v is None]
    for values in itertools.product(range(size), repeat=len(blank)):
        filled = dict(zip(blank, values, strict=True))
        found[tuple(filled.get(i, v) for i, v in enumerate(kept)), now] += weight / size ** len(blank)


def marginals(found, size):
    """(L, V) probabilities of each position of enumerated blocks."""
    blocks = list(found)
    law = torch.zeros(len(blocks[0][0]), size, dtype=torch.float64)
    for (values, _), p in found.items():
        for i, v in enumerate(values):
            law[i, v] += p
    return law

"""The cells of a row of discrete tokens: what a tiny pipeline that an adapter steers does under fklit."""

from collections.abc import Callable
from typing import Any

import torch
from compatibility_cells import PARTICLES, SEED, WrongError, answer
from torch import Tensor

import fklit
from fklit.feynman_kac import group_generators, select
from fklit.pipelines.tokens.adapters import as_token_model
from fklit.steering.settings import SteeringSettings


def run_token_cells(row: Any) -> dict[str, str]:
    """Return the answers of the cells of a row by name.

    Args:
        row: A `tiny_families.row.Row` of texts, or of pictures of tokens.
    """
    pipeline = row.make()[0]
    cells: dict[str, Callable[[], str]] = {
        "scale 0": lambda: _own(row, pipeline, reward_scale=0.0),
        "terminal": lambda: _own(row, pipeline, reward_scale=1e5, potential="terminal"),
        "steer": lambda: _steers(row, pipeline),
        "idle": lambda: _own(row, pipeline, reward_scale=1e-12),
        "previews": lambda: _previews(row, pipeline),
        "clone": lambda: _clone(row, pipeline),
        "alone": lambda: _alone(row, pipeline),
        "correct": lambda: _corrects(row, pipeline),
    }
    return {name: answer(cell) for name, cell in cells.items()}


def reward(samples: Any) -> Any:
    """The share of the letter a in each text, or the mean of each picture."""
    if isinstance(samples, Tensor):
        return samples.flatten(1).mean(1)
    return [text.count("a") / (1 + len(text)) for text in samples]


def _made(result: Any, index: int) -> Any:
    """The samples of a prompt, as the pipeline returns them."""
    return result.items[index] if result.modality == "text" else list(result.samples[index])


def _same(one: Any, other: Any) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


def _settings(row: Any, **options: Any) -> dict[str, Any]:
    return {
        "num_particles": PARTICLES, "reward": reward, "reward_schedule": fklit.Schedule(0.0, 1.0),
        "pipeline_kwargs": row.given(), "seed": SEED, **options,
    }  # fmt: skip


def _steer(row: Any, pipeline: Any, prompts: Any = None, **options: Any) -> Any:
    return fklit.steer(pipeline, list(prompts or row.prompts), **_settings(row, **options))


def _own(row: Any, pipeline: Any, **options: Any) -> str:
    result = _steer(row, pipeline, **options)
    if bool(result.resampled.any()):
        raise WrongError("resampled where no weight parts")
    for index, prompt in enumerate(row.prompts):
        generator = group_generators(SEED, [index])[0]
        kind = {} if row.kind == "text" else {"output_type": "pt"}
        output = pipeline(prompt=[prompt] * PARTICLES, generator=generator, **kind, **row.given())
        if not _same(_made(result, index), output.texts if row.kind == "text" else output.images):
            raise WrongError("samples differ from those of the plain pipeline")
    return "ok"


def _steers(row: Any, pipeline: Any) -> str:
    result = _steer(row, pipeline, reward_scale=1e5, ess_threshold=1.0)
    if not bool(result.resampled.any(dim=0).all()):
        raise WrongError("nothing was resampled")
    samples = [reward(list(texts) if row.kind == "text" else texts) for texts in _groups(row, result)]
    expected = torch.stack([torch.as_tensor(found, dtype=torch.float64) for found in samples])
    if not torch.allclose(expected, result.rewards, rtol=0, atol=1e-6):
        raise WrongError("rewards are not those of the samples")
    if all(torch.equal(group[:1].expand_as(group), group) for group in result.samples):
        raise WrongError("clones did not separate")
    return "ok"


def _groups(row: Any, result: Any) -> Any:
    return result.items if row.kind == "text" else result.samples


def _model(row: Any, pipeline: Any) -> Any:
    settings = SteeringSettings(**_settings(row))
    return as_token_model(pipeline).steering_model(list(row.prompts[:1]), settings)


def _previews(row: Any, pipeline: Any) -> str:
    """What rewards see after the last step: the samples that the pipeline returns."""
    model = _model(row, pipeline)
    source = group_generators(SEED, 1)
    state = model.initial(1, PARTICLES, source)
    for t in range(model.num_steps):
        state, _ = model.step(state, t, torch.zeros(1, PARTICLES), source)
    found, expected = model.clean_samples(state, source)[1], model.finished(state)[0]
    if not _same(found, [sample for sample in expected for _ in range(model.num_draws)]):
        raise WrongError("complete samples predict others")
    return "ok"


def _clone(row: Any, pipeline: Any) -> str:
    """Particles are resampled in each step; after that a clone draws the noise that its parent draws alone."""
    ancestors = torch.tensor([[2, 0, 2]])
    model = _model(row, pipeline)
    source = group_generators(SEED, 1)
    state = model.initial(1, PARTICLES, source)
    for t in range(model.num_steps - 1):
        state, _ = model.step(state, t, torch.zeros(1, PARTICLES), source)
        seen, _ = model.clean_samples(state, source)
        ends = []
        for begin in (select(seen, ancestors), select(state.remembered(), ancestors)):
            again = _model(row, pipeline)
            noise = group_generators(t, 1)
            again.initial(1, PARTICLES, noise)
            ends.append(again.step(begin, t + 1, torch.zeros(1, PARTICLES), noise)[0].groups[0].tokens)
        if not torch.equal(*ends):
            raise WrongError(f"at step {t} clones with predictions at hand go another way than without")
    return "ok"


def _alone(row: Any, pipeline: Any) -> str:
    """The samples of the last prompt do not depend on its neighbors."""
    together = _steer(row, pipeline, reward_scale=1.0)
    last = len(row.prompts) - 1
    alone = _steer(row, pipeline, row.prompts[-1:], reward_scale=1.0, prompt_indices=[last])
    if not _same(_made(together, -1), _made(alone, 0)):
        raise WrongError("the samples of a prompt differ from those of a call with another prompt")
    return "ok"


def _corrects(row: Any, pipeline: Any) -> str:
    fklit.correct(pipeline, list(row.prompts), guidance_scale=3.0, pipeline_kwargs=row.given())
    return "ok"

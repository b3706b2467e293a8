"""The cells of a row of texts: what a tiny text pipeline does under fklit, token by token."""

from collections.abc import Callable
from typing import Any

import torch
from compatibility_cells import PARTICLES, SEED, WrongError, answer

import fklit
from fklit.feynman_kac import group_generators, select
from fklit.pipelines.tokens.adapters import as_text_model
from fklit.steering.settings import SteeringSettings


def run_text_cells(row: Any) -> dict[str, str]:
    """Return the answers of the cells of a row by name.

    Args:
        row: A `tiny_families.row.Row` of texts.
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


def reward(texts: list[str]) -> list[float]:
    """The share of the letter a."""
    return [text.count("a") / (1 + len(text)) for text in texts]


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
        output = pipeline(prompt=[prompt] * PARTICLES, generator=generator, **row.given())
        if result.items[index] != output.texts:
            raise WrongError(f"{result.items[index]} against {output.texts} of the plain pipeline")
    return "ok"


def _steers(row: Any, pipeline: Any) -> str:
    result = _steer(row, pipeline, reward_scale=1e5, ess_threshold=1.0)
    if not bool(result.resampled.any(dim=0).all()):
        raise WrongError("nothing was resampled")
    expected = torch.tensor([reward(texts) for texts in result.items], dtype=torch.float64)
    if not torch.allclose(expected, result.rewards, rtol=0, atol=1e-9):
        raise WrongError("rewards are not those of the texts")
    if all(len({tuple(tokens) for tokens in group.tolist()}) == 1 for group in result.samples):
        raise WrongError("clones did not separate")
    return "ok"


def _model(row: Any, pipeline: Any) -> Any:
    settings = SteeringSettings(**_settings(row))
    return as_text_model(pipeline).steering_model(list(row.prompts[:1]), settings)


def _previews(row: Any, pipeline: Any) -> str:
    """What rewards see after the last step: the texts that the pipeline returns."""
    model = _model(row, pipeline)
    source = group_generators(SEED, 1)
    state = model.initial(1, PARTICLES, source)
    for t in range(model.num_steps):
        state, _ = model.step(state, t, torch.zeros(1, PARTICLES), source)
    found, expected = model.clean_samples(state, source)[1], model.finished(state)[0]
    if found != [text for text in expected for _ in range(model.num_draws)]:
        raise WrongError(f"complete texts predict others: {found} for {expected}")
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
            ends.append(again.finished(again.step(begin, t + 1, torch.zeros(1, PARTICLES), noise)[0])[1])
        if not torch.equal(*ends):
            raise WrongError(f"at step {t} clones with predictions at hand go another way than without")
    return "ok"


def _alone(row: Any, pipeline: Any) -> str:
    """The texts of the last prompt do not depend on its neighbors."""
    together = _steer(row, pipeline, reward_scale=1.0)
    last = len(row.prompts) - 1
    alone = _steer(row, pipeline, row.prompts[-1:], reward_scale=1.0, prompt_indices=[last])
    if together.items[-1] != alone.items[0]:
        raise WrongError("the texts of a prompt differ from those of a call with another prompt")
    return "ok"


def _corrects(row: Any, pipeline: Any) -> str:
    fklit.correct(pipeline, list(row.prompts), guidance_scale=3.0, pipeline_kwargs=row.given())
    return "ok"

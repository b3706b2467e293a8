"""The cells of one row of the compatibility table: what a tiny pipeline of a class does under fklit.

Each cell compares with the plain pipeline, or a clone with its parent, and answers "ok", "refused: ...", "wrong: ..."
or "crash: ...". Refused is what fklit itself raised, in a sentence; anything else that is raised is a crash.
"""

import functools
import inspect
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import fklit
from fklit.feynman_kac import group_generators
from fklit.pipelines.call import build_call
from fklit.pipelines.call_rows import shares_encoding
from fklit.pipelines.copied_step import InterceptedStep
from fklit.pipelines.flow.steps import stochastic_steps
from fklit.pipelines.guidance_argument import guidance_argument, guidance_value
from fklit.pipelines.interception import Interception
from fklit.pipelines.modular import as_pipeline
from fklit.pipelines.sampler import Sampler, choose_sampler
from fklit.pipelines.seeds import reads_seeds, separate_generators
from fklit.steering.run import SteeringRun
from fklit.steering.settings import SteeringSettings

PARTICLES = 3
SEED = 3
PREVIEW = 1e-4  # of autoencoders, by the number of rows
ROUNDING = 2e-5  # of attention that rounds by the place of a row


class WrongError(AssertionError):
    """A comparison that must hold does not."""


def run_cells(row: Any, only: Collection[str] | None = None) -> dict[str, str]:
    """Return the answers of the cells of a row by name.

    Args:
        row: a `tiny_families.row.Row`.
        only: the cells to run; None for all.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that diffusers itself deprecates
        built = row.make()[0]

    def pipeline() -> Any:
        return built

    single = _single(row, pipeline())
    own = functools.cache(lambda: plain(single, pipeline(), row.given()))
    cells: dict[str, Callable[[], str]] = {
        "scale 0": lambda: _plain_samples(single, pipeline(), own, reward_scale=0.0),
        "terminal": lambda: _plain_samples(single, pipeline(), own, reward_scale=1e5, potential="terminal"),
        "steer": lambda: _steers(row, pipeline()),
        "idle": lambda: _idle(single, pipeline()),
        "previews": lambda: _previews(row, pipeline()),
        "clone": lambda: _clone(row, pipeline()),
        "alone": lambda: _alone(row, pipeline()),
        "correct": lambda: _corrects(row, pipeline()),
    }
    answers: dict[str, str] = {}
    for name, cell in cells.items():
        if only is not None and name not in only:
            continue
        if name in ("idle", "previews", "clone", "alone") and answers["steer"].startswith("refused"):
            answers[name] = "not asked: steering is refused"
            continue
        answers[name] = answer(cell)
    return answers


def _single(row: Any, pipeline: Any) -> Any:
    """The row with one prompt where the plain pipeline draws one encoding of a picture for all prompts."""
    if row.prompts is None or not shares_encoding(pipeline, row.arguments):
        return row
    return replace(row, prompts=row.prompts[:1], per_sample=())


def answer(cell: Callable[[], str]) -> str:
    """Return what a cell says, or what it raised and by whom."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return cell()
        except WrongError as error:
            return f"wrong: {error}"
        except Exception as error:
            text = " ".join(str(error).split())
            raised = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
            named = Path(fklit.__file__).parent in raised.parents
            place = "" if named else f" ({raised.name}:{traceback.extract_tb(error.__traceback__)[-1].lineno})"
            return f"{'refused' if named else 'crash'}: {type(error).__name__}: {text[:600]}{place}"


def reward(samples: Tensor) -> Tensor:
    """The mean of each sample."""
    return samples.flatten(1).mean(1)


def _steer(row: Any, pipeline: Any, **options: Any) -> Any:
    given = {
        "num_particles": PARTICLES, "reward": reward, "reward_schedule": fklit.Schedule(0.0, 1.0),
        "pipeline_kwargs": row.given(), "seed": SEED, **options,
    }  # fmt: skip
    torch.manual_seed(SEED)
    return fklit.steer(pipeline, None if row.prompts is None else list(row.prompts), **given)


def plain(row: Any, pipeline: Any, arguments: dict[str, Any], sampler: Sampler | None = None) -> Tensor:
    """The samples of the pipeline's own call, (B, K, ...), with fklit's generators and nothing intercepted.

    Args:
        row: says what is repeated.
        pipeline: as built.
        arguments: of the call.
        sampler: scheduler, eta and kernel that it runs with; None for its own.
    """
    count = _groups(row)
    sources = [source for source in group_generators(SEED, range(count)) for _ in range(PARTICLES)]
    if reads_seeds(pipeline.scheduler):
        sources = separate_generators(sources)
    names = inspect.signature(pipeline.__call__).parameters
    total = count * PARTICLES
    given = {**arguments, "generator": sources, "output_type": row.output, "return_dict": True}
    together = "num_images_per_prompt" in names and not row.per_sample
    if together:
        given["num_images_per_prompt"] = PARTICLES
    if row.prompts is not None:  # text encoders round by the number of texts
        given["prompt"] = list(row.prompts) if together else repeated(row.prompts, total)
    if isinstance(given.get("negative_prompt"), str) and row.prompts is not None:
        given["negative_prompt"] = [given["negative_prompt"]] * len(given["prompt"])
    if row.bare:
        given["prompt"] = row.prompts[0]
    if "batch_size" in names:
        given["batch_size"] = total
    for name in row.per_sample:
        given[name] = repeated(given[name], total)
    torch.manual_seed(SEED)  # some draw a condition by the global generator
    with _sampling(pipeline, sampler, sources):
        output = pipeline(**{name: value for name, value in given.items() if name in names})
    samples = samples_of(output)
    return samples.float().reshape(count, PARTICLES, *samples.shape[1:])


def samples_of(output: Any) -> Tensor:
    """Images, frames or audio of a pipeline's output as a tensor; a video of one frame is an image."""
    names = ("images", "image", "frames", "audios", "audio")
    found = getattr(output, next(name for name in names if getattr(output, name, None) is not None))
    if isinstance(found, list):
        found = torch.stack([torch.as_tensor(item) for item in found])
    found = torch.as_tensor(found)
    if found.ndim == 2:  # waveforms of one channel
        found = found.unsqueeze(1)
    if found.ndim == 4 and found.shape[-1] == 3 and found.shape[1] != 3:  # an array, whatever was asked for
        found = found.permute(0, 3, 1, 2)
    return found.squeeze(1) if found.ndim == 5 and found.shape[1] == 1 else found


def repeated(value: Any, total: int) -> Any:
    """A value with an entry a sample: those of a group side by side."""
    if isinstance(value, Tensor):
        return value.repeat_interleave(total // len(value), dim=0)
    value = [value] if isinstance(value, str | int) else list(value)
    return [item for item in value for _ in range(total // len(value))]


def _groups(row: Any) -> int:
    if row.prompts is not None:
        return len(row.prompts)
    rows = [len(row.arguments[name]) for name in row.per_sample if not isinstance(row.arguments[name], str | int)]
    return max(rows, default=1)


@contextmanager
def _sampling(pipeline: Any, sampler: Sampler | None, sources: Sequence[torch.Generator]) -> Iterator[None]:
    """The pipeline with a sampler of fklit's choice, whose steps get the generators whether it sends them or not."""
    own = pipeline.scheduler
    scheduler = own if sampler is None or sampler.scheduler is None else sampler.scheduler
    pipeline.scheduler = scheduler
    if sampler is not None and sampler.kernel is not None:
        with stochastic_steps(scheduler, sampler.kernel, list(sources)):
            yield
        return
    original = scheduler.step
    names = inspect.signature(original).parameters
    forced: dict[str, Any] = {"generator": list(sources)} if "generator" in names else {}
    if sampler is not None and sampler.eta is not None and "eta" in names:
        forced["eta"] = sampler.eta
    step = functools.wraps(original)(lambda *args, **kwargs: original(*args, **{**kwargs, **forced}))
    scheduler.step = InterceptedStep(scheduler, step, None)  # copies of the scheduler step by themselves
    try:
        yield
    finally:
        del scheduler.step
        pipeline.scheduler = own


def _require_equal(found: Tensor, expected: Tensor, what: str) -> None:
    if found.shape != expected.shape:
        raise WrongError(f"{what}: shape {tuple(found.shape)}, expected {tuple(expected.shape)}")
    if not torch.equal(found, expected):
        raise WrongError(f"{what}: differs by {float((found - expected).abs().max()):.1e}")


def _plain_samples(row: Any, pipeline: Any, own: Callable[[], Tensor], **options: Any) -> str:
    _require_equal(_steer(row, pipeline, **options).samples, own(), "against the plain pipeline")
    return "ok"


def _steers(row: Any, pipeline: Any) -> str:
    result = _steer(row, pipeline, reward_scale=1e5, ess_threshold=1.0)
    if not bool(result.resampled.any(dim=0).all()):
        raise WrongError("nothing was resampled")
    if not bool(result.samples.isfinite().all() and result.reward_path.isfinite().all()):
        raise WrongError("samples or rewards are not finite")
    rewards = reward(result.samples.flatten(0, 1)).double().reshape(result.rewards.shape)
    if not torch.allclose(rewards, result.rewards.double(), rtol=0, atol=1e-6):
        raise WrongError("rewards are not those of the samples")
    apart = result.samples[:, 0] - result.samples[:, 1]
    if float(apart.abs().max()) == 0:
        raise WrongError("clones did not separate")
    return "ok"


def _sampler(pipeline: Any) -> Sampler:
    return choose_sampler(pipeline, "auto", eta=None, resamples=True)


def _idle(row: Any, pipeline: Any) -> str:
    """At a scale at which no weight parts, nothing is resampled; decoding on the way changes nothing."""
    result = _steer(row, pipeline, reward_scale=1e-12)
    if bool(result.resampled.any()):
        raise WrongError("resampled where no weight parts")
    expected = plain(row, pipeline, row.given(), _sampler(pipeline))
    _require_equal(result.samples, expected, "against the plain pipeline under the same sampler")
    return "ok"


def _previews(row: Any, pipeline: Any) -> str:
    """What rewards see on the way: the samples of the last step decode to what the pipeline returns."""
    settings = SteeringSettings(
        num_particles=PARTICLES, reward=reward, reward_scale=1e-12, reward_schedule=fklit.Schedule(0.0, 1.0),
        pipeline_kwargs=row.given(), seed=SEED,
    )  # fmt: skip
    prompts = [""] * _groups(row) if row.prompts is None else list(row.prompts)
    run = SteeringRun(pipeline, prompts, settings)
    with run:
        returned = samples_of(pipeline(**run.call_arguments())).float()
        last = run._interception.returned
        found = samples_of(SimpleNamespace(images=run._term.decoder(last)))
    if found.shape != returned.shape:
        raise WrongError(f"previews of shape {tuple(found.shape)}, samples of {tuple(returned.shape)}")
    difference = float((found - returned).abs().max())
    if difference > PREVIEW:
        raise WrongError(f"the samples of the last step decode to others, by {difference:.1e}")
    return "ok"


class _Hook:
    """Resamples by the given ancestors at one call; from the first step on all slots draw the same noise."""

    def __init__(self, sources: Sequence[torch.Generator], at: int | None, ancestors: Tensor) -> None:
        self.sources, self.at, self.ancestors = sources, at, ancestors
        self.steps = 0

    def begin(self, num_steps: int, noisy: Any) -> None:
        self.steps = num_steps
        for source in self.sources:
            source.manual_seed(7)

    def step(self, call: Any) -> Tensor | None:
        return self.ancestors if call.index == self.at else None


def _clone(row: Any, pipeline: Any) -> str:
    """All slots draw the same noise from the first step on, so that each ends where its ancestor does."""
    ancestors, count = torch.tensor([2, 0, 2, 1]), 4
    sampler = _sampler(pipeline)
    found = []
    for at in (None, 1):
        sources = [torch.Generator().manual_seed(i) for i in range(count)]
        torch.manual_seed(SEED)
        hook = _Hook(sources, at, ancestors)
        prompts = [""] if row.prompts is None else list(row.prompts[:1])
        one = {name: value[:1] if name in row.per_sample else value for name, value in row.given().items()}
        given = build_call(pipeline, prompts, count, sources, one, scheduler=sampler.scheduler)
        with Interception(
            pipeline, hook, generators=sources, scheduler=sampler.scheduler, kernel=sampler.kernel, eta=sampler.eta,
            group_size=count,
        ):  # fmt: skip
            found.append(samples_of(pipeline(**given)))
        if hook.steps < 3:
            raise WrongError(f"only {hook.steps} steps; a clone needs 3 to part")
    start, moved = found
    apart = float((start[0] - start[1]).abs().max())
    if apart < 1e-4:
        raise WrongError(f"particles that start apart end {apart:.1e} apart, so the comparison shows nothing")
    difference = float((moved - start[ancestors]).abs().max())
    if difference > (ROUNDING if row.loose else 0):
        raise WrongError(f"a clone differs from its parent by {difference:.1e}")
    return "ok"


def _alone(row: Any, pipeline: Any) -> str:
    """The samples of the last prompt do not depend on its neighbors, but for rounding by the size of the batch."""
    count = _groups(row)
    if count == 1 or row.prompts is None:
        return "not asked: one prompt"
    together = _steer(row, pipeline, reward_scale=1e-12)
    own = row.given()
    for name in row.per_sample:
        if not isinstance(own[name], str | int) and len(own[name]) == count:
            own[name] = own[name][-1:]
    torch.manual_seed(SEED)
    alone = fklit.steer(
        pipeline, list(row.prompts[-1:]), prompt_indices=[count - 1], num_particles=PARTICLES, reward=reward,
        reward_schedule=fklit.Schedule(0.0, 1.0), pipeline_kwargs=own, seed=SEED, reward_scale=1e-12,
    )  # fmt: skip
    difference = float((alone.samples[0] - together.samples[-1]).abs().max())
    if difference > 1e-2:
        raise WrongError(f"the samples of a prompt differ by {difference:.1e} from those of a call with another prompt")
    return "ok"


def _corrects(row: Any, pipeline: Any) -> str:
    """Guidance of scale 3; without correction the samples are the plain pipeline's at that scale."""
    scale_name = guidance_argument(as_pipeline(pipeline), row.given())
    prompts = [""] if row.prompts is None else list(row.prompts)
    found = []
    for correction in (1.0, 0.0):
        given = {name: value for name, value in row.given().items() if name != scale_name}
        torch.manual_seed(SEED)
        found.append(
            fklit.correct(
                pipeline, prompts, guidance_scale=3.0, num_particles=PARTICLES, pipeline_kwargs=given, seed=SEED,
                correction=correction,
            )
        )  # fmt: skip
        if correction and not bool(found[0].samples.isfinite().all() and found[0].log_weight_std.isfinite().all()):
            raise WrongError("samples or weights are not finite")
        if correction and float(found[0].log_weight_std.max()) == 0:
            raise WrongError("no step was weighed")
    if shares_encoding(pipeline, row.arguments):
        return "ok"
    reference = row.given() | {scale_name: guidance_value(pipeline, 3.0)}
    _require_equal(found[1].samples, plain(row, pipeline, reference), "at correction 0 against the plain pipeline")
    return "ok"

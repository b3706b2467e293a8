"""Search against second implementations of each method, on a pipeline whose denoiser is exact."""

import json
import math

import pytest
import torch

import fklit
from fklit.analytic import GaussianMixture, MixturePipeline
from fklit.feynman_kac import Adaptive, group_generators
from fklit.pipelines.denoised import denoised
from fklit.pipelines.noise_levels import step_levels
from fklit.pipelines.sampler import DeterministicSamplerError
from fklit.steering.gradient_proposal import GradientProposal
from fklit.steering.own_steps import check_settings
from fklit.steering.run import SteeringRun
from fklit.steering.search import SVDD, Beam, CoDe, RolloverBudget, SequentialBestOfN
from fklit.steering.search.rounds import round_seed
from fklit.steering.search.search import chosen_of_blocks
from fklit.steering.settings import SteeringSettings

STEPS, CENTER = 8, 1.5
LAW = GaussianMixture([[-1.5, 0.0], [1.0, 1.0]], [0.2, 0.5], [0.7, 0.3])


def _reward(x):
    return -((x.flatten(1) - CENTER) ** 2).sum(1) / 2


def _scheduler():
    import diffusers

    return diffusers.DDIMScheduler(clip_sample=False)


def _steer(prompts=("a", "a"), *, eta=1.0, **changes):
    pipeline = MixturePipeline({"a": LAW}, LAW, _scheduler())
    settings = {
        "reward": _reward, "num_particles": 6, "decode": lambda x: x, "previews": False, "scheduler": "keep",
        "pipeline_kwargs": {"guidance_scale": 1.0, "num_inference_steps": STEPS, "eta": eta},
    }  # fmt: skip
    return fklit.steer(pipeline, list(prompts), **settings | changes)


def _predict(x, timestep, scheduler):
    levels = step_levels(scheduler, timestep)
    output = -levels.sigma * LAW.score(x.flatten(1).double(), levels.scale, levels.sigma)
    output = output.reshape(x.shape).to(x.dtype)
    return output, denoised(scheduler, output, timestep, x)


def _by_hand(select, steps, *, particles=6, groups=2, seed=0):
    """The pipeline's loop, written again, with a selection of rows by a plain function of a list of rewards."""
    scheduler = _scheduler()
    generators = [g for g in group_generators(seed, groups) for _ in range(particles)]
    x = torch.cat([torch.randn(1, 2, 1, 1, generator=g) for g in generators])
    scheduler.set_timesteps(STEPS)
    for index, timestep in enumerate(scheduler.timesteps):
        output, x0 = _predict(x, timestep, scheduler)
        if index in steps:
            rows = []
            for b in range(groups):
                scores = _reward(x0[b * particles : (b + 1) * particles]).tolist()
                rows += [b * particles + slot for slot in select(scores)]
            x, output = x[rows], output[rows]
        x = scheduler.step(output, timestep, x, eta=1.0, generator=generators, return_dict=False)[0]
    return x.reshape(groups, particles, 2, 1, 1)


def _best_of_blocks(size):
    def select(scores):
        slots = []
        for start in range(0, len(scores), size):
            block = scores[start : start + size]
            slots += [start + block.index(max(block))] * size
        return slots

    return select


def _beam(width):
    def select(scores):
        kept = sorted(sorted(range(len(scores)), key=lambda slot: -scores[slot])[:width])
        return [slot for slot in kept for _ in range(len(scores) // width)]

    return select


@pytest.mark.parametrize(
    ("search", "select", "steps"),
    [
        (SVDD(children=3), _best_of_blocks(3), range(1, STEPS - 1)),
        (SVDD(children=2, schedule=fklit.Schedule(indices=(2, 5))), _best_of_blocks(2), (2, 5)),
        (CoDe(block=3), _best_of_blocks(6), (3, 6)),
        (CoDe(block=2, samples=3), _best_of_blocks(3), (2, 4, 6)),
        (Beam(width=1), _best_of_blocks(6), range(1, STEPS - 1)),
        (Beam(width=2), _beam(2), range(1, STEPS - 1)),
    ],
)
def test_a_second_implementation_makes_the_same_samples(search, select, steps):
    result = _steer(search=search)
    assert torch.equal(result.samples, _by_hand(select, set(steps)))
    assert result.resampled.any()
    # What a search returns has no weights, estimates no Z, and says so.
    assert torch.equal(result.log_weights, torch.full((2, 6), -math.log(6), dtype=torch.float64))
    assert bool(result.log_z.isnan().all())
    assert result.budget.denoiser_calls == 12 * STEPS
    record = json.loads(json.dumps(result.record(1)))
    assert "does not sample the target" in record["search"] and type(search).__name__ in record["search"]
    assert record["log_z"] is None and record["potential"] is None and record["reward_scale"] is None


SEARCHES = [SVDD(children=3), SVDD(children=2, select="softmax"), CoDe(), Beam(width=2), RolloverBudget(draws=3),
            SequentialBestOfN(threshold=1e9, most=6)]  # fmt: skip


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: type(search).__name__)
def test_scale_zero_is_the_base(search):
    base = _steer(potential="terminal", reward_scale=0.0)
    assert torch.equal(_steer(search=search, reward_scale=0.0).samples, base.samples)


@pytest.mark.parametrize(
    "search", [SVDD(children=1), SVDD(children=1, select="softmax"), CoDe(block=STEPS), RolloverBudget(draws=1)]
)
def test_without_a_choice_it_is_best_of_n(search):
    base = _steer(potential="terminal", reward_scale=1.0)
    found = _steer(search=search, reward_scale=1.0)
    assert torch.equal(found.samples, base.samples)
    assert torch.equal(found.best_index(), base.best_index())
    assert found.budget.denoiser_calls == base.budget.denoiser_calls


def test_softmax_draws_by_weight():
    rewards = torch.tensor([[0.0, 1.0, -1.0, 2.0]], dtype=torch.float64).repeat(4000, 1)
    found = chosen_of_blocks(rewards, 4, reward_scale=0.7, generator=torch.Generator().manual_seed(0))
    expected = torch.softmax(0.7 * rewards[0], 0)
    for slot, share in enumerate(expected.tolist()):
        error = math.sqrt(share * (1 - share) / 4000)
        assert abs(float((found[:, 0] == slot).double().mean()) - share) < 4 * error
    assert bool((found == found[:, :1]).all())


def test_softmax_never_takes_what_is_dead():
    rewards = torch.tensor([[-math.inf, 0.0, -math.inf, -5.0]] * 500, dtype=torch.float64)
    found = chosen_of_blocks(rewards, 4, reward_scale=1.0, generator=torch.Generator().manual_seed(1))
    assert set(found.unique().tolist()) <= {1, 3}


def test_rewards_rise():
    base = float(_steer(["a"] * 20, potential="terminal", reward_scale=1.0).rewards.mean())
    means = {type(s).__name__: float(_steer(["a"] * 20, search=s, reward_scale=5.0).rewards.mean()) for s in SEARCHES}
    assert all(value > base for name, value in means.items() if name != "SequentialBestOfN"), (base, means)


class TestSequential:
    def test_it_stops_where_it_should_and_counts(self):
        search = SequentialBestOfN(threshold=-1.2, most=12)
        result = _steer(["a"] * 5, num_particles=2, search=search)
        batches = [_steer(["a"] * 5, num_particles=2, potential="terminal", reward_scale=1.0, seed=round_seed(0, r))
                   for r in range(6)]  # fmt: skip
        drawn = []
        for b in range(5):
            tops = [float(batch.rewards[b].max()) for batch in batches]
            last = next((r for r, top in enumerate(tops) if top > -1.2), 5)
            best = max(range(last + 1), key=lambda r: tops[r])
            drawn.append(2 * (last + 1))
            assert torch.equal(result.samples[b], batches[best].samples[b])
            assert torch.equal(result.rewards[b], batches[best].rewards[b])
        assert result.draws.tolist() == drawn and len(set(drawn)) > 1
        assert result.budget.denoiser_calls == sum(drawn) * STEPS
        assert result.record(0)["draws"] == drawn[0]
        assert result.record(0)["budget"]["denoiser_calls"] == drawn[0] * STEPS
        assert result.settings["seed"] == 0

    def test_one_batch_where_the_threshold_is_low(self):
        result = _steer(search=SequentialBestOfN(threshold=-1e9, most=60))
        assert result.draws.tolist() == [6, 6]
        assert torch.equal(result.samples, _steer(potential="terminal", reward_scale=1.0).samples)

    def test_a_prompt_depends_on_its_index_alone(self):
        search = SequentialBestOfN(threshold=-0.05, most=12)
        both = _steer(["a"] * 3, num_particles=2, search=search)
        alone = _steer(["a"], num_particles=2, search=search, prompt_indices=[2])
        assert torch.equal(both.samples[2], alone.samples[0])

    def test_arguments_of_each_prompt_are_refused(self):
        kwargs = {"guidance_scale": 1.0, "num_inference_steps": STEPS, "eta": [1.0, 1.0]}
        with pytest.raises(ValueError, match="the same for all prompts, got 'eta' with 2 entries"):
            _steer(search=SequentialBestOfN(threshold=0.0, most=6), pipeline_kwargs=kwargs)


class _Denoiser(torch.nn.Module):
    """The exact one for all rows alike, whose arguments can be split."""

    def __init__(self, scheduler):
        super().__init__()
        self.scheduler = scheduler

    def forward(self, sample, timestep):
        return _predict(sample, timestep, self.scheduler)[0]


class _Pipeline:
    def __init__(self):
        self.scheduler = _scheduler()
        self.unet = _Denoiser(self.scheduler)

    def __call__(self, prompt, *, num_inference_steps=STEPS, num_images_per_prompt=1, generator=None, eta=0.0):
        x = torch.cat([torch.randn(1, 2, 1, 1, generator=g) for g in generator])
        self.scheduler.set_timesteps(num_inference_steps)
        for timestep in self.scheduler.timesteps:
            output = self.unet(x, timestep)
            x = self.scheduler.step(output, timestep, x, eta=eta, generator=generator, return_dict=False)[0]
        return type("Output", (), {"images": x})()


def _rollover(draws, **changes):
    settings = {
        "reward": _reward, "num_particles": 2, "decode": lambda x: x, "previews": False, "scheduler": "keep",
        "pipeline_kwargs": {"num_inference_steps": STEPS, "eta": 1.0},
    }  # fmt: skip
    return fklit.steer(_Pipeline(), ["a", "a", "a"], search=RolloverBudget(draws=draws), **settings | changes)


def _rollover_by_hand(draws):
    """Kim et al. 2025: row by row, a child after the other."""
    scheduler, count = _scheduler(), 6
    generators = [g for g in group_generators(0, 3) for _ in range(2)]
    further = [g for g in group_generators(0, 3, stream="search") for _ in range(2)]
    x = torch.cat([torch.randn(1, 2, 1, 1, generator=g) for g in generators])
    scheduler.set_timesteps(STEPS)
    left, reached, drawn = [0] * count, [-math.inf] * count, 0
    mean, std = None, 0.0
    for index, timestep in enumerate(scheduler.timesteps):
        x = x.clone()
        scores = _reward(_predict(x, timestep, scheduler)[1]).tolist()
        drawn += count
        if index > 0:
            left = [value + draws - 1 for value in left]
            while any(scores[i] <= reached[i] and left[i] > 0 for i in range(count)):
                for i in [i for i in range(count) if scores[i] <= reached[i] and left[i] > 0]:
                    child = mean[i] + std * torch.randn(2, 1, 1, generator=further[i])
                    score = float(_reward(_predict(child[None], timestep, scheduler)[1]))
                    left[i], drawn = left[i] - 1, drawn + 1
                    if score > scores[i]:
                        scores[i], x[i] = score, child
        reached = scores
        output, x0 = _predict(x, timestep, scheduler)
        after = int(timestep) - 1000 // STEPS
        a, b = (
            float(scheduler.alphas_cumprod[int(timestep)]),
            float(scheduler.alphas_cumprod[after]) if after >= 0 else 1,
        )
        std = math.sqrt((1 - b) / (1 - a) * (1 - a / b))
        mean = math.sqrt(b) * x0 + math.sqrt(max(1 - b - std**2, 0)) * output
        x = scheduler.step(output, timestep, x, eta=1.0, generator=generators, return_dict=False)[0]
    return x.reshape(3, 2, 2, 1, 1), drawn


@pytest.mark.parametrize("draws", [2, 4])
def test_rollover_is_that_of_a_second_implementation(draws):
    result = _rollover(draws)
    expected, drawn = _rollover_by_hand(draws)
    torch.testing.assert_close(result.samples, expected, atol=1e-4, rtol=1e-4)
    assert result.budget.denoiser_calls == drawn
    assert 6 * STEPS < drawn <= 6 * STEPS * draws
    assert result.reward_path.shape == (STEPS, 3, 2)


def test_rollover_on_a_real_pipeline():
    from tiny import tiny_stable_diffusion

    pipeline = tiny_stable_diffusion()
    common = {"reward": lambda images: 20 * images.mean((1, 2, 3)), "num_particles": 2, "scheduler": "keep",
              "pipeline_kwargs": {"num_inference_steps": 5, "guidance_scale": 3.0, "eta": 1.0, "height": 16,
                                  "width": 16}}  # fmt: skip
    base = fklit.steer(pipeline, ["a cat", "a dog"], potential="terminal", reward_scale=1.0, **common)
    found = fklit.steer(pipeline, ["a cat", "a dog"], search=RolloverBudget(draws=3), max_batch=4, **common)
    assert float(found.rewards.mean()) > float(base.rewards.mean())
    assert found.budget.denoiser_calls > base.budget.denoiser_calls
    assert found.previews.shape[:3] == (5, 2, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"search": SVDD(children=4)}, "multiple of children=4.*got 6"),
        ({"search": Beam(width=4)}, "multiple of width=4"),
        ({"search": SequentialBestOfN(threshold=0.0, most=16)}, "multiple of num_particles=6"),
        ({"search": SVDD(children=2), "potential": "max"}, r"expected potential=Difference.*search=None"),
        ({"search": CoDe(), "tempering": Adaptive()}, "expected tempering=None"),
        ({"search": CoDe(), "reward_schedule": fklit.Schedule(1, 2)}, "expected reward_schedule=None"),
        ({"search": CoDe(), "ess_threshold": 1.0}, "expected ess_threshold=0.5"),
        ({"search": CoDe(), "proposal": GradientProposal()}, "expected proposal=None"),
        ({"search": SVDD(children=2, select="softmax")}, "expected reward_scale"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        _steer(**options)


def test_what_is_no_search_is_refused():
    with pytest.raises(TypeError, match="expected a Search, got a str"):
        _steer(search="svdd")
    settings = SteeringSettings(reward=_reward, search=CoDe())
    with pytest.raises(ValueError, match="SteeringRun expected search=None"):
        SteeringRun(MixturePipeline({"a": LAW}, LAW, _scheduler()), ["a"], settings)
    with pytest.raises(ValueError, match="expected search=None, as object owns its steps"):
        check_settings(settings, object())


@pytest.mark.parametrize("search", [SVDD(children=3), RolloverBudget(draws=2)])
def test_a_sampler_without_noise_is_refused(search):
    with pytest.raises(DeterministicSamplerError, match="eta=1"):
        _steer(search=search, eta=0.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SVDD(children=0), "children"),
        (lambda: SVDD(select="worst"), "select"),
        (lambda: CoDe(block=0), "block"),
        (lambda: CoDe(samples=1), "samples"),
        (lambda: Beam(width=0), "width"),
        (lambda: RolloverBudget(draws=0), "draws"),
        (lambda: SequentialBestOfN(threshold=math.inf), "threshold"),
        (lambda: SequentialBestOfN(threshold=0.0, most=0), "most"),
    ],
)
def test_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_rollover_needs_plain_guidance():
    from tiny import tiny_stable_diffusion

    from fklit.pipelines.interception import UnsupportedPipelineError

    kwargs = {"num_inference_steps": 5, "guidance_scale": 3.0, "guidance_rescale": 0.7, "eta": 1.0, "height": 16,
              "width": 16}  # fmt: skip
    with pytest.raises(UnsupportedPipelineError, match=r"linear combination.*another search"):
        fklit.steer(tiny_stable_diffusion(), "a cat", reward=lambda images: -images.mean((1, 2, 3)),
                    search=RolloverBudget(draws=8), scheduler="keep", pipeline_kwargs=kwargs)  # fmt: skip

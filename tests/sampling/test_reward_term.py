"""The reward of a run, score by score, against numbers by hand."""

import math

import pytest
import torch

from fklit.feynman_kac import Adaptive, Constant, Difference, Linear, Schedule, Terminal
from fklit.pipelines.finite import NonFiniteError
from fklit.sampling.reward_term import REWARD_RECORD, RewardTerm
from fklit.sampling.settings import DEFAULT_REWARD_SCHEDULE, ParticleSettings, RewardSettings


def first_pixel(images):
    return images[:, 0, 0, 0]


def _term(num_particles=3, prompts=("a", "b"), **settings):
    given = {"reward": first_pixel, "reward_scale": 2.0, "decode": lambda latents: latents, **settings}
    return RewardTerm(None, prompts, RewardSettings(**given), ParticleSettings(num_particles=num_particles))


def _samples(*values):
    return torch.tensor(values).reshape(-1, 1, 1, 1).expand(-1, 3, 2, 2).clone()


@pytest.mark.parametrize(
    ("settings", "steers"),
    [
        ({}, True),
        ({"reward_scale": 0.0}, False),
        ({"num_particles": 1}, False),
        ({"num_particles": 2}, True),
        ({"potential": "terminal"}, False),
        ({"reward_schedule": Schedule(indices=())}, False),
        ({"reward_schedule": Schedule(indices=(1,))}, True),
        ({"reward_scale": 1e-9}, True),
    ],
)
def test_weights_can_part_before_the_end(settings, steers):
    assert _term(**settings).steers is steers


def test_what_is_not_given_is_chosen():
    term = _term()
    assert term.potential == Difference() and term.tempering == Constant() and term.reward_scale == 2.0
    assert term.schedule == DEFAULT_REWARD_SCHEDULE == Schedule(start=0.2, stop=0.8, every=0.1)
    assert DEFAULT_REWARD_SCHEDULE.resolve(20) == (4, 6, 8, 10, 12, 14, 16)
    assert (term.steps, term.num_scored, term.decoder.decodes, term.reward_calls) == ((), 0, 0, 0)
    chosen = _term(potential="terminal", tempering=Linear(), reward_schedule=Schedule(1, 2))
    assert chosen.potential == Terminal() and chosen.tempering == Linear() and chosen.schedule == Schedule(1, 2)
    assert chosen.record() == {
        **{"reward": term.reward.display_name, "reward_scale": 2.0, "potential": repr(Terminal())},
        **{
            "reward_schedule": repr(Schedule(1, 2)),
            "tempering": repr(Linear()),
            "preview_decoder": None,
            "latent_reward": None,
            "stop_scoring_above": None,
        },
    }
    assert tuple(term.record()) == REWARD_RECORD


def test_the_schedule_is_resolved_at_the_start():
    term = _term(reward_schedule=Schedule(1, 3))
    with pytest.raises(AssertionError, match="the run has not begun"):
        _ = term.path
    term.begin(5)
    assert term.steps == (1, 2, 3) and term.path.shape == (2, 3) and term.path.num_scores == 0
    ignored = _term(potential="terminal", reward_schedule=Schedule(1, 3))
    ignored.begin(5)
    assert ignored.steps == ()


def test_scores_add_up_to_the_scaled_reward_of_the_samples():
    term = _term(reward_schedule=Schedule(indices=(0, 2)))
    term.begin(4)
    assert term.reward_path.shape == (0, 2, 3) and term.reward_path.dtype == torch.float64
    carried = torch.zeros(2, 3, dtype=torch.float64)
    latents = _samples(0.0, 0.25, 0.5, 1.0, 0.75, 0.5)
    rewards, images = term.score(latents, where="at step 0")
    assert torch.equal(images, latents)
    assert rewards.tolist() == [[0.0, 0.25, 0.5], [1.0, 0.75, 0.5]] and rewards.dtype == torch.float64
    assert (term.num_scored, term.decoder.decodes, term.reward_calls) == (1, 6, 6)
    assert term.reward_checks == 1, "one sample alone: do scores depend on the batch?"
    assert term.update(rewards, carried).tolist() == [[0.0, 0.5, 1.0], [2.0, 1.5, 1.0]]
    second, _ = term.score(_samples(*[0.5] * 6), where="at step 2")
    assert term.update(second, carried).tolist() == [[1.0, 0.5, 0.0], [-1.0, -0.5, 0.0]]
    assert term.reward_path.tolist() == [rewards.tolist(), second.tolist()]
    last, log_potential = term.close(_samples(1.0, 0.0, 1.0, 0.0, 1.0, 0.0), torch.zeros(6, dtype=torch.bool))
    assert last.tolist() == [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    assert log_potential.tolist() == [[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0]]
    assert (term.num_scored, term.decoder.decodes, term.reward_calls) == (2, 12, 18), "the samples are decoded already"


def test_tempering_counts_the_scores():
    """Linear over two scores: fractions 1/3 and 2/3 of the scale, which is 2."""
    term = _term(prompts=("a",), tempering=Linear(), reward_schedule=Schedule(indices=(0, 2)))
    term.begin(4)
    totals = torch.zeros(1, 3, dtype=torch.float64)
    for fraction in (1 / 3, 2 / 3):
        rewards, _ = term.score(_samples(0.0, 0.5, 1.0), where="here")
        totals += term.update(rewards, totals)
        torch.testing.assert_close(totals, 2.0 * fraction * rewards)


def test_adaptive_tempering_sees_the_carried_weights():
    carried = torch.tensor([[0.0, -0.5, 0.3]]).double()
    term = _term(prompts=("a",), tempering=Adaptive(0.6), reward_scale=50.0, reward_schedule=Schedule(indices=(0,)))
    term.begin(4)
    rewards, _ = term.score(_samples(0.0, 1.0, 0.1), where="here")
    moved = carried + term.update(rewards, carried)
    weights = moved.softmax(dim=1)
    assert float(1 / weights.square().sum()) == pytest.approx(0.6 * 3, abs=1e-6)


def test_latents_of_pixels_are_scored_as_the_pipeline_shows_them():
    """Without `decode` and without an autoencoder pixels in [-1, 1] become images in [0, 1]; nothing counts twice."""
    term = _term(prompts=("a",), decode=None, reward_schedule=Schedule(indices=(0,)))
    term.begin(2)
    rewards, images = term.score(_samples(-1.0, 0.0, 3.0), where="here")
    assert rewards.tolist() == [[0.0, 0.5, 1.0]] and images[1].unique().tolist() == [0.5]
    assert term.decoder.decodes == 0, "the pipeline's own decoder counts for itself"


def test_the_settings_of_the_particles_reach_the_reward():
    seen = []

    def spy(images):
        seen.append(len(images))
        return torch.full((len(images),), math.nan)

    particles = ParticleSettings(num_particles=3, max_batch=2, on_nan="drop")
    term = RewardTerm(None, ["a"], RewardSettings(reward=spy, reward_scale=1.0, decode=lambda x: x), particles)
    term.begin(2)
    rewards, _ = term.score(_samples(0.0, 1.0, 2.0), where="here")
    assert seen == [2, 2] and torch.isnan(rewards).all() and term.reward_calls == 3


def test_what_is_not_finite_is_named_or_gets_nan():
    latents = _samples(0.0, 0.25, 0.5, 1.0, 0.75, 0.5)
    latents[4, 1, 0, 1] = math.inf  # the pixel that scores is finite
    term = _term(reward_schedule=Schedule(indices=(0,)))
    term.begin(2)
    with pytest.raises(NonFiniteError, match=r"at step 0 the decoder .*particle 1 of prompt 'b'"):
        term.score(latents, where="at step 0")
    seen = []

    def darkness(images):
        seen.append(images)
        return 1 - images[:, 0, 0, 0]

    particles = ParticleSettings(num_particles=3, on_nan="drop")
    settings = RewardSettings(
        reward=darkness, reward_scale=2.0, decode=lambda x: x, reward_schedule=Schedule(indices=(0,))
    )
    term = RewardTerm(None, ["a", "b"], settings, particles)
    term.begin(2)
    rewards, images = term.score(latents, where="at step 0")
    torch.testing.assert_close(
        rewards, torch.tensor([[1.0, 0.75, 0.5], [0.0, math.nan, 0.5]]).double(), rtol=0, atol=0, equal_nan=True
    )
    assert torch.equal(images, latents)
    assert torch.equal(seen[0], _samples(0.0, 0.25, 0.5, 1.0, 0.0, 0.5)), "the reward sees zeros in its place"
    term.update(rewards.nan_to_num(0.0), torch.zeros(2, 3).double())
    broken = torch.tensor([False, False, True, False, False, False])
    last, log_potential = term.close(_samples(*[0.0] * 6), broken)
    assert torch.isnan(last).flatten().tolist() == torch.isnan(log_potential).flatten().tolist() == broken.tolist()
    assert last[1].tolist() == [1.0, 1.0, 1.0]


def test_a_run_too_short_for_the_default_schedule_is_told_so():
    with pytest.raises(ValueError, match=r"a run with a step at a reward_schedule of 0\.2 to 0\.8 .* of 1 step\(s\)"):
        _term().begin(1)
    with pytest.raises(ValueError, match=r"start=3 is outside a run of 2 steps"):
        _term(reward_schedule=Schedule(3, 4)).begin(2)

"""Steering a text model through `fklit.steer`: exact targets, prompts, records, and refusals of one line."""

import itertools
import math

import pytest
import torch

import fklit
from fklit.rewards import RewardError
from fklit.steering.own_steps import Steerable
from fklit.text import DiffusionTransformer, MaskedTextModel, TextSampling, TransformerSettings
from fklit.text.words import build_tokenizer

WORDS = ["<pad>", "<unk>", "<s>", "<mask>", "a", "b", "c", "."]


class Marginals:
    """A denoiser whose predictions depend on how many words are there: not a product law, but one to enumerate."""

    def __call__(self, tokens, at):
        base = torch.tensor([9.0, 9.0, 9.0, 9.0, 0.0, 0.5, -0.5, 0.2], dtype=torch.float64)
        known = (tokens != 3).sum(1, keepdim=True) - (tokens == 4).sum(1, keepdim=True)
        logits = base + 0.4 * known[..., None] * torch.arange(8) / 8
        return logits.expand(*tokens.shape, 8)[at]

    def law(self, tokens):
        """Probabilities of the four words at a masked position, by plain numbers."""
        known = sum(token != 3 for token in tokens) - sum(token == 4 for token in tokens)
        weights = [math.exp(x + 0.4 * known * v / 8) for v, x in zip(range(4, 8), (0.0, 0.5, -0.5, 0.2), strict=True)]
        return [weight / sum(weights) for weight in weights]


def model(**sampling):
    settings = {"length": 3, "num_steps": 3, "num_draws": 2} | sampling
    return MaskedTextModel(Marginals(), build_tokenizer(WORDS), sampling=TextSampling(**settings))


def count_a(texts, prompts=None):
    return [float(text.count("a")) for text in texts]


def base_law():
    """Law of the finished texts by enumeration of all 4^3 partly masked ones over three steps."""
    law = {(3, 3, 3): 1.0}
    for unmask in (1 / 3, 1 / 2, 1.0):
        after = {}
        for tokens, mass in law.items():
            choices = []
            for token in tokens:
                if token != 3:
                    choices.append([(token, 1.0)])
                else:
                    found = Marginals().law(tokens)
                    choices.append(
                        [(3, 1 - unmask), *((v, unmask * p) for v, p in zip(range(4, 8), found, strict=True))]
                    )
            for way in itertools.product(*choices):
                new = tuple(token for token, _ in way)
                after[new] = after.get(new, 0.0) + mass * math.prod(p for _, p in way)
        law = after
    return {text: mass for text, mass in law.items() if mass > 0}


@pytest.mark.parametrize("potential", ["difference", "terminal"])
@pytest.mark.parametrize("start", [0.0, 0.3])
def test_steering_converges_to_the_tilted_law(potential, start):
    scale = 1.2
    tilted = {text: mass * math.exp(scale * text.count(4)) for text, mass in base_law().items()}
    z = sum(tilted.values())
    expected = sum(mass * text.count(4) for text, mass in tilted.items()) / z
    result = fklit.steer(
        model(), reward=count_a, reward_scale=scale, num_particles=16_000, potential=potential, ess_threshold=1.0,
        reward_schedule=fklit.Schedule(start=start, every=1),
    )  # fmt: skip
    assert float(result.log_z) == pytest.approx(math.log(z), abs=0.04)
    assert float(result.reward_mean) == pytest.approx(expected, abs=0.06)
    assert bool(result.resampled.any()) == (potential == "difference")
    assert result.scored_steps == ({"difference": (0, 1, 2) if start == 0 else (1, 2), "terminal": ()}[potential])


def test_sweeps_of_particle_gibbs_bring_few_particles_to_the_tilted_law():
    scale = 1.2
    tilted = {text: mass * math.exp(scale * text.count(4)) for text, mass in base_law().items()}
    expected = sum(mass * text.count(4) for text, mass in tilted.items()) / sum(tilted.values())

    def gap(sweeps):
        result = fklit.steer(
            model(), [""] * 700, reward=count_a, reward_scale=scale, num_particles=4, ess_threshold=1.0,
            reward_schedule=fklit.Schedule(start=0.0, every=1), num_sweeps=sweeps,
        )  # fmt: skip
        # What stands in the result is of all particles of the last sweep, the kept one included.
        for made, rewards in zip(result.items, result.rewards.tolist(), strict=True):
            assert count_a(made) == rewards
        assert result.reward_path.shape == (len(result.scored_steps), 700, 4)
        assert result.budget.denoiser_calls > 0 and result.settings["num_sweeps"] == sweeps
        return float(result.reward_mean.mean()) - expected, float(result.reward_mean.std()) / math.sqrt(700)

    (before, _), (after, error) = gap(0), gap(12)
    print(f"mean reward less the target's: {before:.3f}, after 12 sweeps {after:.3f} (standard error {error:.3f})")
    assert before < -0.1 and abs(after) < 3 * error < 0.1


def test_sweeps_on_a_network_leave_records_whole():
    result = fklit.steer(model(), ["a", ""], reward=count_a, reward_scale=1.0, num_particles=3, num_sweeps=2, seed=3)
    for texts, rewards in zip(result.predictions, result.reward_path, strict=True):
        assert [len(row) for row in texts] == [3, 3] and rewards.shape == (2, 3)
    for made, details in zip(result.items, result.details, strict=True):
        assert ["".join(one["pieces"]) for one in details] == made
    once = fklit.steer(model(), ["a", ""], reward=count_a, reward_scale=1.0, num_particles=3, seed=3)
    assert torch.equal(once.log_z, result.log_z)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_sweeps": 1, "num_particles": 1}, "expected num_particles of at least 2 with num_sweeps=1, got 1"),
        ({"num_sweeps": -1}, "num_sweeps"),
        ({"num_sweeps": 1, "tempering": fklit.feynman_kac.Adaptive()}, "expected num_sweeps=0 with tempering=Adaptive"),
    ],
)
def test_sweeps_that_cannot_be_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        fklit.steer(model(), reward=count_a, reward_scale=1.0, **given)


def test_pipelines_have_no_sweeps():
    settings = fklit.steering.settings.SteeringSettings(reward=count_a, num_sweeps=1)
    with pytest.raises(ValueError, match="expected num_sweeps=0 with a diffusers pipeline, got 1"):
        fklit.SteeringRun(None, ["a"], settings)


def test_evidence_is_unbiased_with_few_particles_and_draws():
    z = sum(mass * math.exp(text.count(4)) for text, mass in base_law().items())
    result = fklit.steer(
        model(), [""] * 2000, reward=count_a, reward_scale=1.0, num_particles=3, ess_threshold=1.0,
        reward_schedule=fklit.Schedule(every=1),
    )  # fmt: skip
    ratio = result.log_z.exp() / z
    error = float(ratio.std()) / math.sqrt(2000)
    assert abs(float(ratio.mean()) - 1) < 3.5 * error < 0.1


def test_results_have_texts_records_and_costs():
    result = fklit.steer(model(), ["a b", "c"], reward=count_a, reward_scale=1.0, num_particles=4)
    assert [len(row) for row in result.items] == [4, 4]
    assert all(text.startswith("a b") for text in result.items[0]) and result.samples.shape == (2, 4, 3)
    best = result.best()
    assert best[0] in result.items[0] and count_a(best) == result.rewards.amax(1).tolist()
    assert len(result.sample(3)[1]) == 3
    record = result.record(1)
    assert record["modality"] == "text" and record["sampler"] == "ancestral" and record["prompt"] == "c"
    assert 0 < result.budget.denoiser_calls <= 2 * 4 * 4 and result.budget.reward_calls > 0
    assert record["reward_schedule"].startswith("Schedule") and record["num_steps"] == 3


@pytest.mark.parametrize(
    "given", [{}, {"reward_schedule": fklit.Schedule(start=0.0, every=1)}, {"potential": "terminal"}]
)
def test_without_a_scale_samples_are_those_of_the_model(given):
    made, prompts = model(), ["", "a"]
    result = fklit.steer(made, prompts, reward=count_a, reward_scale=0.0, num_particles=4, seed=5, **given)
    assert not result.resampled.any() and (result.log_z == 0).all()
    assert result.items == made.sample(prompts, 4, seed=5)
    # Nor does one particle know when rewards look, or particles whose rewards are equal.
    one = fklit.steer(made, prompts, reward=count_a, reward_scale=9.0, num_particles=1, seed=5, **given)
    assert one.items == made.sample(prompts, 1, seed=5)
    even = fklit.steer(
        made, prompts, reward=lambda texts: [2.0] * len(texts), reward_scale=9.0, num_particles=4, seed=5, **given
    )  # fmt: skip
    assert even.items == result.items


def test_prompts_do_not_depend_on_their_neighbors():
    together = fklit.steer(model(), ["", "a"], reward=count_a, reward_scale=2.0, num_particles=5)
    alone = fklit.steer(model(), ["a"], reward=count_a, reward_scale=2.0, num_particles=5, prompt_indices=[1])
    assert together.items[1] == alone.items[0] and torch.equal(together.log_weights[1:], alone.log_weights)


def test_equal_texts_are_scored_once():
    seen = []

    def reward(texts):
        seen.extend(texts)
        return count_a(texts)

    result = fklit.steer(model(), reward=reward, reward_scale=1.0, num_particles=300, potential="terminal")
    assert result.budget.reward_calls == len(seen) == len(set(seen)) <= 64


def test_a_network_is_steered_from_its_folder(tmp_path):
    torch.manual_seed(0)
    network = DiffusionTransformer(TransformerSettings(vocab_size=8, width=16, layers=1, heads=2))
    build_tokenizer(WORDS).save_pretrained(tmp_path / "tokenizer")
    fklit.text.save_folder(network, tmp_path / "tokenizer", tmp_path / "model")
    made = MaskedTextModel.from_folder(tmp_path / "model", sampling=TextSampling(length=6, num_steps=4))
    assert isinstance(made, Steerable)
    result = fklit.steer(
        made, "a b", reward=count_a, reward_scale=3.0, num_particles=6, max_batch=4,
        reward_schedule=fklit.Schedule(every=1), pipeline_kwargs={"num_steps": 8, "temperature": 0.9},
    )  # fmt: skip
    assert result.num_steps == 8 and "<" not in "".join(result.items[0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompt": "a zebra b"}, "expected words that the tokenizer knows, got 'zebra' in the prompt"),
        ({"prompt": "a b c"}, "expected a prompt of fewer than 3 tokens, got 3"),
        ({"pipeline_kwargs": {"eta": 1.0}}, "expected pipeline_kwargs among length, num_steps, temperature, num_draws"),
        ({"pipeline_kwargs": {"num_steps": 0}}, "expected num_steps as an integer of at least 1"),
        ({"pipeline_kwargs": {"temperature": "0.8"}}, "expected temperature above 0, got '0.8'"),
        ({"scheduler": "keep"}, "expected scheduler='auto', as MaskedTextModel owns its steps"),
        ({"decode": lambda x: x}, "expected decode=None"),
    ],
)
def test_what_does_not_fit_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        fklit.steer(model(), **({"reward": count_a, "reward_scale": 1.0} | given))


def test_tokenizers_of_other_models_are_refused():
    network = DiffusionTransformer(TransformerSettings(vocab_size=6, width=8, layers=1, heads=2))
    with pytest.raises(ValueError, match="at most the network's 6 tokens, got 8"):
        MaskedTextModel(network, build_tokenizer(WORDS))
    without = build_tokenizer(WORDS)
    without.mask_token = None
    with pytest.raises(ValueError, match="expected a tokenizer with a mask"):
        MaskedTextModel(Marginals(), without)


def test_logits_beyond_the_tokenizer_are_padding_and_missing_ones_are_refused():
    torch.manual_seed(0)
    padded = DiffusionTransformer(TransformerSettings(vocab_size=64, width=8, layers=1, heads=2))
    made = MaskedTextModel(padded, build_tokenizer(WORDS), sampling=TextSampling(length=6, num_steps=4))
    result = fklit.steer(made, "a", reward=count_a, reward_scale=0.5, num_particles=40)
    assert set(result.samples.flatten().tolist()) == {4, 5, 6, 7}
    fewer = MaskedTextModel(lambda tokens, at: torch.zeros(int(at.sum()), 6), build_tokenizer(WORDS))
    with pytest.raises(ValueError, match="expected logits of the tokenizer's 8 tokens from the denoiser, got 6"):
        fewer.sample()
    with pytest.raises(ValueError, match="expected never as tokens that the tokenizer has, got 'zebra'; omit them"):
        MaskedTextModel(padded, build_tokenizer(WORDS), never=["a", "zebra"])


def test_rewards_that_fail_are_named():
    with pytest.raises(RewardError, match=r"at step \d of 3: expected finite scores .* got nan for '.*' of prompt 'a'"):
        fklit.steer(model(), "a", reward=lambda texts: [math.nan] * len(texts), reward_scale=1.0)
    with pytest.raises(ValueError, match="reward expected one of text samples, as MaskedTextModel makes them"):
        fklit.steer(model(), "a", reward=fklit.rewards.JPEGCompressibility(), reward_scale=1.0)


def test_particles_whose_text_has_no_score_may_be_dropped():
    def reward(texts):
        return [math.nan if "c" in text else 0.0 for text in texts]

    result = fklit.steer(
        model(), reward=reward, reward_scale=1.0, num_particles=50, on_nan="drop", potential="terminal"
    )  # fmt: skip
    alive = result.log_weights[0] > -math.inf
    assert [("c" not in text) for text in result.items[0]] == alive.tolist() and 0 < int(result.dropped) < 50

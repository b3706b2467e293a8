"""DiffusionGemma steered: the pipeline's own bits, its law enumerated, and everything moved with the particles."""

import copy
import itertools
import math
from collections import defaultdict

import pytest
import torch
from text_enumeration import accepted_step, marginals, posterior_step, refined_step
from tiny_text_pipelines import tiny_diffusion_gemma

import fklit
from fklit.feynman_kac import group_generators, select
from fklit.pipelines.tokens.diffusion_gemma import DiffusionGemmaModel

PROMPTS = ["the cat", "dog"]
CALL = {"gen_length": 7, "num_inference_steps": 4, "temperature": 1.0}
KINDS = {
    "refinement": ("BlockRefinementScheduler", {"threshold": 0.5, "editing_threshold": 0.3}),
    "posterior": ("DiscreteDDIMScheduler", {}),
    "corrected": ("DiscreteDDIMScheduler", {"corrector_steps": 1, "corrector_k": 2}),
    "entropy": ("EntropyBoundScheduler", {"entropy_bound": 1.0}),
}


def scheduler(kind):
    import diffusers

    name, options = KINDS[kind]
    return getattr(diffusers, name)(**options)


def length(texts):
    return [float(len(text)) for text in texts]


@pytest.fixture(scope="module")
def pipeline():
    return tiny_diffusion_gemma()


def steer(pipeline, prompts=PROMPTS, **given):
    call = {**CALL, **given.pop("call", {})}
    return fklit.steer(pipeline, prompts, **{"reward": length, "seed": 5, "pipeline_kwargs": call, **given})


def own(pipeline, prompt, number, index=0, **call):
    """The pipeline's own call with copies of a prompt."""
    return pipeline(prompt=[prompt] * number, generator=group_generators(5, [index])[0], **{**CALL, **call})


@pytest.mark.parametrize(
    ("kind", "call"),
    [
        ("refinement", {}),
        ("refinement", {"temperature": 0.0, "confidence_threshold": 2.5}),
        ("posterior", {"temperature": 0.7, "eos_early_stop": False}),
        ("posterior", {"confidence_threshold": 2.55, "stability_threshold": 2}),
        ("corrected", {"confidence_threshold": None}),
        ("entropy", {"confidence_threshold": 2.4}),
    ],
)
def test_at_scale_zero_the_texts_are_the_pipelines_own_bit_for_bit(pipeline, kind, call):
    """Also with rewards on the way, whose draws must not be those of the steps, and with frozen canvases."""
    pipeline.scheduler = scheduler(kind)
    for number in (1, 3):
        result = steer(pipeline, reward_scale=0.0, num_particles=number, call=call)
        for index, prompt in enumerate(PROMPTS):
            output = own(pipeline, prompt, number, index, **call)
            written = output.sequences.shape[1]  # the call stops when all rows have an end token
            assert torch.equal(result.samples[index, :, :written], output.sequences)
            assert (result.samples[index, :, written:] == 2).all() and result.items[index] == output.texts
    assert result.modality == "text" and len(result.predictions) == len(result.steps) > 0


def states(model, number, seed=3):
    """The states of a run without weights."""
    generator = group_generators(seed, 1)
    state = model.initial(1, number, generator)
    yield state
    for t in range(model.num_steps):
        state, ratio = model.step(state, t, torch.zeros(1, number), generator)
        assert (ratio == 0).all()
        yield state


SMALL = ["<pad>", "a", "</s>", "b"]
SMALL_CALL = {"gen_length": 2, "num_inference_steps": 2, "temperature": 1.3, "confidence_threshold": None}
ENUMERATED = ("refinement", "posterior", "entropy")


@pytest.fixture(scope="module", params=ENUMERATED)
def small(request):
    kind = request.param
    return kind, tiny_diffusion_gemma(words=SMALL, canvas=2, spread=0.5, seed=2, scheduler=scheduler(kind))


def _step(kind, logits, canvas, committed, step, *, temperature=1.3):
    if kind == "refinement":
        return refined_step(
            logits, canvas, committed, step=step, steps=2, temperature=temperature, threshold=0.5, editing=0.3
        )
    if kind == "posterior":
        return posterior_step(logits, canvas, step=step, steps=2, temperature=temperature)
    return accepted_step(logits, step=step, steps=2, bound=1.0, t_max=0.8, t_min=0.4)


def _network(pipeline, canvases, conditioning):
    """Logits by the model's own forward, which reads the prompt anew."""
    prompt = torch.tensor([[1]]).expand(len(canvases), -1)
    with torch.no_grad():
        return pipeline.model(
            input_ids=prompt, decoder_input_ids=torch.tensor(canvases), self_conditioning_logits=conditioning
        ).logits


@pytest.fixture(scope="module")
def law(small):
    """Every canvas at the start, every step, every canvas at the end."""
    kind, pipeline = small
    first = list(itertools.product(range(4), repeat=2))
    logits = _network(pipeline, first, None)
    paths = [
        (start, middle, committed, p / 16)
        for start, row in zip(first, logits, strict=True)
        for (middle, committed), p in _step(kind, row, start, (False, False), 0).items()
        if p
    ]
    place = {canvas: number for number, canvas in enumerate(first)}
    shaped = logits / 0.8 if kind == "entropy" else logits  # what the next prediction is conditioned on
    again = _network(pipeline, [path[1] for path in paths], shaped[[place[path[0]] for path in paths]])
    found = defaultdict(float)
    for (_, middle, committed, p), row in zip(paths, again, strict=True):
        for (end, _), q in _step(kind, row, middle, committed, 1).items():
            found[end] += p * q
    return found


def score(texts):
    return [float(text.split().count("a") - text.split().count("b")) for text in texts]


class TestEnumerated:
    """Texts of two tokens of four words: the whole law by a second reading of each scheduler."""

    def test_the_law_sums_to_one_and_is_the_base_samplers(self, small, law):
        assert sum(law.values()) == pytest.approx(1, abs=1e-6)
        number = 4000
        result = steer(small[1], "a", reward_scale=0.0, num_particles=number, potential="terminal", call=SMALL_CALL)
        found = (result.samples[0] @ torch.tensor([4, 1])).bincount(minlength=16)
        expected = torch.tensor([law[canvas] for canvas in itertools.product(range(4), repeat=2)]).double()
        error = (expected * (1 - expected) / number).sqrt()
        assert ((found / number - expected).abs() <= 4 * error + 1e-4).all()

    @pytest.mark.slow
    def test_the_target_and_its_evidence(self, small, law):
        groups, scale = 150, 0.5
        model = DiffusionGemmaModel(small[1], ["a"], SMALL_CALL)
        p = torch.tensor(list(law.values()), dtype=torch.float64)
        rewards = torch.tensor(score(model.texts(torch.tensor(list(law)))), dtype=torch.float64)
        z = float((p * (scale * rewards).exp()).sum())
        target = float((p * (scale * rewards).exp() * rewards).sum()) / z
        result = steer(
            small[1], ["a"] * groups, reward=score, reward_scale=scale, num_particles=4, ess_threshold=1.0,
            call={**SMALL_CALL, "num_draws": 2}, reward_schedule=fklit.Schedule(0, 1),
        )  # fmt: skip
        assert bool(result.resampled.any())
        ratio = result.log_z.exp() / z
        error = float(ratio.std()) / math.sqrt(groups)
        print(f"{small[0]}: E[Z]/Z {float(ratio.mean()):.4f} +- {error:.4f}")
        assert abs(float(ratio.mean()) - 1) < 4 * error < 0.2
        away = ((result.log_weights.exp() * result.rewards).sum(1) - target) * ratio
        error = float(away.std()) / math.sqrt(groups)
        print(f"{small[0]}: mean reward off by {float(away.mean()):.4f} +- {error:.4f} of {target:.4f}")
        assert abs(float(away.mean())) < 4 * error < 0.3

    @pytest.mark.parametrize("temperature", [1.3, 0.0])
    def test_transition_probabilities_are_those_of_every_draw(self, small, temperature):
        kind, pipeline = small
        if temperature == 0 and kind == "entropy":
            pytest.skip("it has temperatures of its own")
        model = DiffusionGemmaModel(pipeline, ["a"], {**SMALL_CALL, "temperature": temperature})
        for step, state in enumerate(list(states(model, 5))[:2]):
            law, rows = model.transition_probs(state), state.groups[0]
            assert law.dtype == torch.float64 and (law.sum(-1) - 1).abs().max() < 1e-12 and (law >= 0).all()
            logits = model._logits(0, rows, rows.tokens[:, -2:])
            for row, canvas in enumerate(rows.tokens[:, -2:].tolist()):
                kept = (rows.scheduler or {}).get("_committed", torch.zeros(5, 2, dtype=torch.bool))
                options = _step(kind, logits[row], canvas, kept[row].tolist(), step, temperature=temperature)
                assert (marginals(options, 4) - law[row]).abs().max() < 1e-6


@pytest.mark.parametrize("forgotten", [None, "cache", "conditioning", "committed"])
def test_a_forced_resampling_is_that_of_a_run_by_hand(pipeline, forgotten):
    """The pipeline itself, moved by hand in its second canvas: canvas, cache, conditioning and what is committed.

    What is forgotten shows: its run is another one.
    """
    ancestors, number = torch.tensor([2, 0, 2, 1]), 4
    pipeline.scheduler = scheduler("refinement")
    call = {**CALL, "eos_early_stop": False, "confidence_threshold": None}
    moved = []

    def move(pipe, step, timestep, found):
        if step != 5:  # the second step of the second canvas
            return found
        moved.append(True)
        if forgotten != "committed":
            pipe.scheduler._committed = pipe.scheduler._committed[ancestors]
        return {"canvas": found["canvas"][ancestors]}

    forward = pipeline.model.forward

    def by_hand(*args, **given):
        if moved and forgotten != "cache":
            given["past_key_values"] = copy.deepcopy(given["past_key_values"])
            given["past_key_values"].reorder_cache(ancestors)
        if moved == [True]:  # the first call after: later ones are conditioned on their own rows
            moved.append(False)
            if forgotten != "conditioning":
                given["self_conditioning_logits"] = given["self_conditioning_logits"][ancestors]
        return forward(*args, **given)

    pipeline.model.forward = by_hand
    try:
        expected = own(pipeline, "the cat", number, **call, callback_on_step_end=move).sequences
    finally:
        pipeline.model.forward = forward
    model = DiffusionGemmaModel(pipeline, ["the cat"], call)
    generator = group_generators(5, 1)
    state = model.initial(1, number, generator)
    for t in range(model.num_steps):
        state, _ = model.step(state, t, torch.zeros(1, number), generator)
        if t == 5:
            state, _ = model.clean_samples(state, generator)  # predictions are at hand, and move as well
            state = select(state, ancestors[None])
    found = model.finished(state)[1][0]
    assert torch.equal(found[:, :4], expected[ancestors, :4])
    assert torch.equal(found[:, 4:], expected[:, 4:]) == (forgotten is None)


@pytest.mark.parametrize("kind", ["refinement", "corrected"])
def test_groups_do_not_depend_on_their_neighbors_and_chunks_have_the_same_bits(pipeline, kind):
    pipeline.scheduler = scheduler(kind)
    together = steer(pipeline, reward_scale=1.0, num_particles=3, max_batch=2)
    alone = steer(pipeline, PROMPTS[1:], reward_scale=1.0, num_particles=3, max_batch=2, prompt_indices=[1])
    assert torch.equal(together.samples[1], alone.samples[0])
    assert torch.equal(together.log_weights[1], alone.log_weights[0])
    if kind == "refinement":
        assert bool(together.resampled.any())


def test_chunks_are_the_whole_but_for_rounding(pipeline):
    pipeline.scheduler = scheduler("refinement")
    whole, parts = (steer(pipeline, reward_scale=0.0, num_particles=3, max_batch=size) for size in (None, 2))
    assert torch.equal(whole.samples, parts.samples)


def test_clean_texts_keep_what_is_committed_and_have_no_canvases_to_come(pipeline):
    pipeline.scheduler = scheduler("refinement")
    call = {**CALL, "eos_early_stop": False, "num_draws": 3, "confidence_threshold": None}
    model = DiffusionGemmaModel(pipeline, ["the cat"], call)
    for state in states(model, 2):
        rows = state.groups[0]
        seen = model.undecided(0, rows, max(state.steps - 1, 0) // 4, (state.steps - 1) % 4 + 1 if state.steps else 0)
        assert seen.tokens.shape[1] == 4 * (1 + max(state.steps - 1, 0) // 4)
        if state.steps % 4 == 0 and state.steps:
            assert not seen.open_.any() and seen.law is None
        else:
            kept = (rows.scheduler or {}).get("_committed", torch.zeros(2, 4, dtype=torch.bool))
            ended = (rows.tokens[:, 2:-4] == 2).any(1, keepdim=True)  # what follows is no part of the text
            assert torch.equal(seen.open_[:, -4:], ~kept & ~ended) and not seen.open_[:, :-4].any()
            assert seen.law is None or torch.allclose(seen.law(0).exp().sum(1), torch.ones(()).double())
        _, texts = model.clean_samples(state, None)
        assert len(texts) == 2 * 3


def test_particle_gibbs_and_records(pipeline):
    pipeline.scheduler = scheduler("refinement")
    result = steer(pipeline, "the cat", reward_scale=1.0, num_particles=3, num_sweeps=1)
    assert result.samples.shape == (1, 3, 8) and result.settings["sampler"] == "BlockRefinementScheduler"
    detail = result.details[0][0]
    assert "".join(detail["pieces"]) == result.items[0][0] and len(detail["pieces"]) == len(detail["unmasked_at"])


def test_a_scheduler_of_the_proposed_interface_fits(pipeline):
    """diffusers #14741: its step takes no temperature, and `pred_logits` is the law that tokens are drawn from."""
    from diffusers import DiscreteDDIMScheduler

    class Shaped(DiscreteDDIMScheduler):
        def step(self, model_output, timestep, sample, *, generator=None, return_dict=True):
            output = super().step(model_output / 0.5, timestep, sample, temperature=1.0, generator=generator)
            assert torch.equal(output.pred_logits, model_output / 0.5)
            return output

    shaped = tiny_diffusion_gemma(scheduler=Shaped())
    result = steer(shaped, reward_scale=0.0, num_particles=3)
    assert result.items[0] == own(shaped, PROMPTS[0], 3).texts
    model = DiffusionGemmaModel(shaped, ["a"], CALL)
    state = model.initial(1, 2, group_generators(0, 1))
    rows = state.groups[0]
    seen = model.undecided(0, rows, 0, 0)
    expected = torch.softmax(model._logits(0, rows, rows.tokens[:, -4:]) / 0.5, -1).double()
    for slot in range(2):
        torch.testing.assert_close(seen.law(slot).exp(), expected[slot], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"height": 8}, "expected pipeline_kwargs among num_draws, .*gen_length.* got height; omit it"),
        ({"image": "x"}, "without image for DiffusionGemmaPipeline, got 'x'; omit it: particles have no pictures"),
        ({"cache_implementation": "static"}, "got 'static'; omit it: caches grow and move with the particles"),
        ({"num_draws": True}, "expected num_draws as an integer of at least 1, got True"),
        ({"num_inference_steps": 0}, "`num_inference_steps` must be > 0, got 0"),
    ],
)
def test_odd_arguments_give_one_line(pipeline, given, message):
    with pytest.raises(ValueError, match=message) as caught:
        steer(pipeline, reward_scale=1.0, call=given)
    assert "\n" not in str(caught.value)


def test_a_prompt_without_tokens_is_refused(pipeline):
    with pytest.raises(ValueError, match="expected a prompt of at least one token, got ''; write one"):
        DiffusionGemmaModel(pipeline, ["a", ""], CALL)


def test_laws_that_are_not_known_are_refused(pipeline):
    from diffusers import DiscreteDDIMScheduler
    from diffusers.configuration_utils import ConfigMixin

    class Stranger(ConfigMixin):
        config_name = "scheduler_config.json"
        config = {}  # noqa: RUF012
        step, set_timesteps = DiscreteDDIMScheduler.step, DiscreteDDIMScheduler.set_timesteps
        _sample_from_logits = staticmethod(DiscreteDDIMScheduler._sample_from_logits)

    pipeline.scheduler = Stranger()
    model = DiffusionGemmaModel(pipeline, ["a"], CALL)
    state = model.initial(1, 2, group_generators(0, 1))
    with pytest.raises(
        ValueError, match="EntropyBoundScheduler, got Stranger, whose transition probabilities fklit does"
    ):
        model.transition_probs(state)
    assert steer(pipeline, reward_scale=1.0).samples.shape == (2, 4, 8)  # it can be sampled, though
    pipeline.scheduler = scheduler("corrected")
    model = DiffusionGemmaModel(pipeline, ["a"], CALL)
    with pytest.raises(ValueError, match="expected a step within a canvas and without a corrector, got step 0 of canv"):
        model.transition_probs(model.initial(1, 2, group_generators(0, 1)))

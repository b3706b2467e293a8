"""LLaDA2 steered: the pipeline's own bits, its law enumerated, and everything moved with the particles."""

import math

import pytest
import torch
from text_enumeration import llada2_law, marginals, masked_step
from tiny_text_pipelines import CHAT, tiny_llada2

import fklit
from fklit.feynman_kac import group_generators, run, select
from fklit.pipelines.sampler import DeterministicSamplerError
from fklit.pipelines.tokens.arguments import call_arguments
from fklit.pipelines.tokens.llada2 import LLaDA2Model

PROMPTS = ["the cat", "dog"]
CALL = {"gen_length": 10, "num_inference_steps": 4, "temperature": 1.0, "threshold": 0.6, "editing_threshold": None}


def length(texts):
    return [float(len(text)) for text in texts]


@pytest.fixture(scope="module")
def pipeline():
    return tiny_llada2()


def steer(pipeline, prompts=PROMPTS, **given):
    call = {**CALL, **given.pop("call", {})}
    return fklit.steer(pipeline, prompts, **{"reward": length, "seed": 5, "pipeline_kwargs": call, **given})


def own(pipeline, prompt, number, index=0, **call):
    """The pipeline's own call with copies of a prompt."""
    generator = group_generators(5, [index])[0]
    return pipeline(prompt=[prompt] * number if number > 1 else prompt, generator=generator, **{**CALL, **call})


@pytest.mark.parametrize(
    ("number", "call"),
    [
        (1, {"editing_threshold": 0.2}),
        (1, {"editing_threshold": 0.1, "max_post_steps": 2}),
        (3, {}),
        (3, {"top_k": 4, "top_p": 0.8, "temperature": 0.7}),
        (3, {"eos_early_stop": False, "minimal_topk": 3, "block_length": 5}),
        (3, {"temperature": 0.0}),
    ],
)
def test_at_scale_zero_the_texts_are_the_pipelines_own_bit_for_bit(pipeline, number, call):
    """Also with rewards on the way, whose draws must not be those of the steps."""
    result = steer(pipeline, reward_scale=0.0, num_particles=number, call=call)
    for index, prompt in enumerate(PROMPTS):
        output = own(pipeline, prompt, number, index, **call)
        assert torch.equal(result.samples[index], output.sequences) and result.items[index] == output.texts
    assert result.modality == "text" and len(result.predictions) == len(result.steps) > 0


def test_one_particle_at_any_scale_is_the_pipelines_own_text(pipeline):
    result = steer(pipeline, reward_scale=3.0, num_particles=1, call={"editing_threshold": 0.2})
    expected = [own(pipeline, prompt, 1, i, editing_threshold=0.2).texts for i, prompt in enumerate(PROMPTS)]
    assert result.items == expected


def test_a_chat_template_is_applied_as_the_pipeline_does():
    chatty = tiny_llada2(chat=CHAT)
    for call in ({}, {"use_chat_template": False}):
        result = steer(chatty, "the cat", reward_scale=0.0, num_particles=1, call=call)
        assert result.items[0] == own(chatty, "the cat", 1, **call).texts


def test_editing_a_particle_ends_where_its_own_call_would_end(pipeline):
    """A call of several rows goes on editing complete rows: the particles do not, so their law is that of one row."""
    model = LLaDA2Model(pipeline, ["the cat"], {**CALL, "editing_threshold": 0.1, "eos_early_stop": False})
    before, edits = None, 0
    for state in states(model, 6):
        rows = state.groups[0]
        if before is not None and (state.steps - 1) % model.steps_per_block:
            changed = (rows.tokens != before.tokens).any(dim=1)
            assert not (changed & ~before.continues).any()
            edits += int((changed & ~before.had_masks).sum())
        before = rows
    assert edits > 0


def states(model, number, seed=3):
    """The states of a run without weights."""
    generator = group_generators(seed, 1)
    state = model.initial(1, number, generator)
    yield state
    for t in range(model.num_steps):
        state, ratio = model.step(state, t, torch.zeros(1, number), generator)
        assert (ratio == 0).all()
        yield state


SMALL = ["<pad>", "<mask>", "</s>", "a", "b"]
SMALL_CALL = {
    "gen_length": 3, "block_length": 2, "num_inference_steps": 2, "temperature": 1.3, "threshold": 0.5,
    "editing_threshold": 0.3, "max_post_steps": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def small():
    return tiny_llada2(words=SMALL, spread=0.5, seed=1)


def enumerated(pipeline, call, given=(3,)):
    known = {}

    def logits(tokens):
        if tokens not in known:
            ids = torch.tensor([tokens])
            with torch.no_grad():
                seen = torch.zeros_like(ids)
                seen[:, : len(given) + call["gen_length"]] = 1
                place = torch.arange(ids.shape[1])[None]
                known[tokens] = (
                    pipeline.model(ids, attention_mask=seen, position_ids=place).logits[0] / call["temperature"]
                )
        return known[tokens]

    size = call["block_length"]
    blocks = range(len(given) // size, -(-(len(given) + call["gen_length"]) // size))
    start = [*given, *[1] * (blocks.stop * size - len(given))]
    law = llada2_law(
        logits, start, blocks=blocks, length=size, steps=call["num_inference_steps"], mask=1, eos=2,
        threshold=call["threshold"], editing=call["editing_threshold"], post=call["max_post_steps"], given=len(given),
    )  # fmt: skip
    texts = {}
    for tokens, p in law.items():
        made = tokens[len(given) : len(given) + call["gen_length"]]
        texts[made] = texts.get(made, 0.0) + p
    return texts


def score(texts):
    return [float(text.split().count("a") - text.split().count("b")) for text in texts]


@pytest.fixture(scope="module")
def law(small):
    return enumerated(small, SMALL_CALL)


class TestEnumerated:
    """Texts of three tokens of five words: the whole law by a second reading of the sampler."""

    def rewards(self, small, law):
        texts = LLaDA2Model(small, ["a"], SMALL_CALL).texts(torch.tensor(list(law)))
        return torch.tensor(score(texts), dtype=torch.float64)

    def test_the_law_sums_to_one_and_is_the_base_samplers(self, small, law):
        assert sum(law.values()) == pytest.approx(1, abs=1e-9)
        number = 3000
        result = steer(small, "a", reward_scale=0.0, num_particles=number, potential="terminal", call=SMALL_CALL)
        places = {tokens: place for place, tokens in enumerate(law)}
        found = torch.tensor([places[tuple(row)] for row in result.samples[0].tolist()]).bincount(minlength=len(law))
        expected = torch.tensor(list(law.values()), dtype=torch.float64)
        error = (expected * (1 - expected) / number).sqrt()
        assert ((found / number - expected).abs() <= 5 * error + 1e-3).all()

    def test_the_target_and_its_evidence(self, small, law):
        scale, groups, each = 1.0, 60, 4
        p = torch.tensor(list(law.values()), dtype=torch.float64)
        rewards = self.rewards(small, law)
        z = float((p * (scale * rewards).exp()).sum())
        target = float((p * (scale * rewards).exp() * rewards).sum()) / z
        result = steer(
            small, ["a"] * groups, reward=score, reward_scale=scale, num_particles=each, ess_threshold=1.0,
            call={**SMALL_CALL, "num_draws": 2}, reward_schedule=fklit.Schedule(0, 3),
        )  # fmt: skip
        assert bool(result.resampled.any())
        ratio = result.log_z.exp() / z
        error = float(ratio.std()) / math.sqrt(groups)
        print(f"E[Z]/Z {float(ratio.mean()):.4f} +- {error:.4f}")
        assert abs(float(ratio.mean()) - 1) < 4 * error < 0.3
        # The unnormalized estimate of the target's mean is unbiased, too; its ratio is consistent.
        weighted = (result.log_weights.exp() * result.rewards).sum(1) * ratio
        error = float((weighted - target * ratio).std()) / math.sqrt(groups)
        print(f"mean reward {float(weighted.mean()):.4f}, target {target:.4f} +- {error:.4f}")
        assert abs(float((weighted - target * ratio).mean())) < 4 * error < 0.3

    @pytest.mark.parametrize("editing", [None, 0.3])
    def test_transition_probabilities_are_those_of_every_draw(self, small, editing):
        call = {**SMALL_CALL, "editing_threshold": editing, "block_length": 3}
        model = LLaDA2Model(small, ["a"], call)
        asked = 0
        for state in list(states(model, 4))[: model.steps_per_block]:
            law = model.transition_probs(state)
            assert law.dtype == torch.float64 and (law.sum(-1) - 1).abs().max() < 1e-12 and (law >= -1e-15).all()
            rows = state.groups[0]
            for row in range(4):
                if not rows.continues[row] and state.steps:
                    assert (law[row].gather(1, rows.tokens[row, :3, None]) == 1).all()
                    continue
                with torch.no_grad():
                    logits = model._logits(0, rows, 3)[row]
                probs = torch.softmax(logits / 1.3, -1).double()
                options = masked_step(
                    (probs / probs.sum(-1, keepdim=True)).tolist(), tuple(rows.tokens[row, :3].tolist()), mask=1,
                    number=[2, 1][min(state.steps, 1)], threshold=0.5, editing=editing, given=[True, False, False],
                )  # fmt: skip
                assert (marginals(options, 5) - law[row]).abs().max() < 1e-6
                asked += 1
        assert asked >= 5


def test_a_forced_resampling_is_that_of_a_run_by_hand(pipeline):
    """The pipeline itself, whose callback moves the whole window: `block_x` has the blocks before the current one."""
    ancestors, at, number = torch.tensor([2, 0, 2, 1]), 6, 4
    call = {**CALL, "eos_early_stop": False, "threshold": 2.0}
    seen = []

    def move(pipe, step, timestep, found):
        seen.append(step)
        return {"block_x": found["block_x"][ancestors] if step == at else found["block_x"]}

    expected = own(pipeline, "the cat", number, **call, callback_on_step_end=move).sequences
    model = LLaDA2Model(pipeline, ["the cat"], call)
    assert model.num_steps == len(seen) == 12
    generator = group_generators(5, 1)
    state = model.initial(1, number, generator)
    for t in range(model.num_steps):
        state, _ = model.step(state, t, torch.zeros(1, number), generator)
        if t == at:
            state, _ = model.clean_samples(state, generator)  # predictions are at hand, and move as well
            state = select(state, ancestors[None])
    assert torch.equal(model.finished(state)[1][0], expected)
    assert not torch.equal(expected, own(pipeline, "the cat", number, **call).sequences)


def test_predictions_at_hand_change_nothing_and_are_not_asked_for_again(pipeline):
    model = LLaDA2Model(pipeline, PROMPTS, CALL)

    class Watched:
        def __init__(self, looks):
            self.looks, self.num_steps = looks, model.num_steps

        def initial(self, *given):
            return model.initial(*given)

        def step(self, state, t, log_weights, generator):
            state, ratio = model.step(state, t, log_weights, generator)
            return model.clean_samples(state, generator)[0] if t in self.looks else state, ratio

    results, calls = [], []
    for looks in ((), (0, 1, 4, 5)):
        found = run(Watched(looks), num_groups=2, num_particles=3, generator=group_generators(1, 2))
        results.append(model.finished(found.samples)[1])
        calls.append(model.budget.denoiser_calls)
    assert torch.equal(*results) and calls[0] == calls[1]


def test_groups_do_not_depend_on_their_neighbors_and_chunks_have_the_same_bits(pipeline):
    together = steer(pipeline, reward_scale=1.0, num_particles=3, max_batch=2)
    alone = steer(pipeline, PROMPTS[1:], reward_scale=1.0, num_particles=3, max_batch=2, prompt_indices=[1])
    assert torch.equal(together.samples[1], alone.samples[0])
    assert torch.equal(together.log_weights[1], alone.log_weights[0])


def test_clean_texts_keep_what_is_decided_and_have_no_blocks_to_come(pipeline):
    model = LLaDA2Model(pipeline, ["the cat"], {**CALL, "num_draws": 3, "eos_early_stop": False, "threshold": 2.0})
    for state in states(model, 2):
        _, texts = model.clean_samples(state, None)
        assert len(texts) == 2 * 3
        block = max(state.steps - 1, 0) // model.steps_per_block
        tokens = state.groups[0].tokens[:, 2:12]
        for number, text in enumerate(texts):
            # The window of the last block that was begun is all that there is of a text.
            known = tokens[number // 3][: min(4 * (block + 1) - 2, 10)]
            whole = model.texts(known[None])[0].split()
            assert len(text.split()) <= len(known) and (1 in known.tolist() or text.split() == whole)


def test_particle_gibbs_and_records(pipeline):
    result = steer(pipeline, "the cat", reward_scale=1.0, num_particles=3, num_sweeps=2)
    assert result.samples.shape == (1, 3, 10) and result.settings["sampler"] == "BlockRefinementScheduler"
    detail = result.details[0][0]
    assert "".join(detail["pieces"]) == result.items[0][0] and len(detail["pieces"]) == len(detail["unmasked_at"])
    assert result.record(0)["predictions"]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"temperature": 0.0}, DeterministicSamplerError, "draws tokens, got temperature=0 .*; set a temperature"),
        ({"sampling_method": "greedy"}, DeterministicSamplerError, "sampling_method='greedy', which gives every"),
        ({"height": 8}, ValueError, "expected pipeline_kwargs among num_draws, .*gen_length.* got height; omit it"),
        ({"messages": []}, ValueError, r"without messages for LLaDA2Pipeline, got \[\]; omit it: give prompts to"),
        ({"generator": None}, ValueError, "without generator for .* omit it: set seed"),
        ({"callback_on_step_end": print}, ValueError, "callbacks may change tokens"),
        ({"num_draws": 0}, ValueError, "expected num_draws as an integer of at least 1, got 0"),
        ({"gen_length": 0}, ValueError, "`gen_length` must be > 0, got 0"),
    ],
)
def test_odd_arguments_give_one_line(pipeline, given, error, message):
    with pytest.raises(error, match=message) as caught:
        steer(pipeline, reward_scale=1.0, call=given)
    assert "\n" not in str(caught.value)


def test_odd_pipelines_and_rewards_give_one_line(pipeline):
    with pytest.raises(ValueError, match="expected scheduler='auto', as LLaDA2Pipeline owns its steps, got 'keep'"):
        steer(pipeline, scheduler="keep")
    with pytest.raises(ValueError, match="reward expected one of text samples, as LLaDA2Pipeline makes them"):
        steer(pipeline, reward=fklit.rewards.JPEGCompressibility())
    mute = tiny_llada2()
    mute.tokenizer, mute.mask_token_id = None, None
    with pytest.raises(ValueError, match="expected a tokenizer in LLaDA2Pipeline, as rewards take texts, got None"):
        steer(mute)
    bare = tiny_llada2()
    bare.mask_token_id = None
    with pytest.raises(ValueError, match="expected a tokenizer with a mask token, or mask_token_id in pipeline_kwargs"):
        steer(bare)
    assert steer(bare, reward_scale=1.0, call={"mask_token_id": 1}).samples.shape == (2, 4, 10)
    model = LLaDA2Model(pipeline, PROMPTS, CALL)
    with pytest.raises(ValueError, match="expected 2 groups, one a prompt, got 1"):
        model.initial(1, 2, None)


def test_defaults_are_the_pipelines_own(pipeline):
    call = call_arguments(pipeline, None)
    assert (call["gen_length"], call["temperature"], call["editing_threshold"]) == (2048, 0.0, 0.5)
    assert call["num_draws"] == 4 and "generator" not in call

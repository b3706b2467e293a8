"""aMUSEd steered: the pipeline's own bits, its law enumerated, and predictions moved with the particles."""

import itertools
import math

import pytest
import torch
from tiny_families import rows

import fklit
from fklit.feynman_kac import group_generators, select
from fklit.pipelines.interception import UnsupportedPipelineError
from fklit.pipelines.tokens.amused import AmusedModel
from fklit.report.writing import write_prompt

PROMPTS = ["a cat", "a dog"]
CALL = {"num_inference_steps": 5}


def brightness(images):
    return images.flatten(1).mean(1) * 10


@pytest.fixture(scope="module")
def pipeline():
    return rows()["AmusedPipeline"].make()[0]


def steer(pipeline, prompts=PROMPTS, **given):
    call = {**CALL, **given.pop("call", {})}
    return fklit.steer(pipeline, prompts, **{"reward": brightness, "seed": 5, "pipeline_kwargs": call, **given})


def own(pipeline, prompt, number, index=0, **call):
    """The pipeline's own call with copies of a prompt."""
    generator = group_generators(5, [index])[0]
    return pipeline(prompt=[prompt] * number, generator=generator, output_type="pt", **{**CALL, **call}).images


@pytest.mark.parametrize(
    "call", [{}, {"guidance_scale": 1.0, "temperature": (3, 1)}, {"negative_prompt": "bad"}, {"num_inference_steps": 1}]
)
def test_at_scale_zero_the_pictures_are_the_pipelines_own_bit_for_bit(pipeline, call):
    for number in (1, 3):
        result = steer(
            pipeline, reward_scale=0.0, num_particles=number, call=call, reward_schedule=fklit.Schedule(0, 0)
        )
        for index, prompt in enumerate(PROMPTS):
            negative = {"negative_prompt": ["bad"] * number} if "negative_prompt" in call else {}
            assert torch.equal(result.samples[index], own(pipeline, prompt, number, index, **call | negative))
    assert result.modality == "image" and result.items[0][0].size == (8, 8)


def test_steered_pictures_are_brighter_and_are_written(pipeline, tmp_path):
    result = steer(pipeline, reward_scale=50.0, num_particles=8, call={"num_draws": 2})
    assert bool(result.resampled.any()) and float(result.reward_mean.mean()) > float(
        steer(pipeline, reward_scale=0.0, num_particles=8).reward_mean.mean()
    )
    write_prompt(tmp_path, result.record(0), result.items[0], {"prompt": "a cat"})
    assert len(list((tmp_path / "samples").glob("*.png"))) == 8
    # 8 particles x 2 prompts: each scored step decodes 2 draws, and the finished pictures are decoded once.
    assert result.budget.decodes == 16 * (2 * len(result.steps) + 1)
    assert result.budget.denoiser_calls == 5 * 2 * 16


@pytest.fixture(scope="module")
def small():
    """Pictures of two by two tokens of eight in two steps, at a temperature at which masks are drawn at random."""
    return rows()["AmusedPipeline"].make()[0], {
        "num_inference_steps": 2, "height": 2, "width": 2, "guidance_scale": 1.0, "temperature": (1e6, 1e6),
    }  # fmt: skip


@pytest.mark.slow
def test_the_target_and_its_evidence_by_enumeration(small):
    """The first step keeps all but `floor(4 cos(pi / 4))` = 2 tokens, which two are drawn evenly; the second all."""
    pipeline, call = small
    model = AmusedModel(pipeline, ["a cat"], call)
    state = model.initial(1, 1, group_generators(0, 1))
    assert state.groups[0].tokens.shape == (1, 2, 2)

    def law_of(tokens):
        shown = torch.tensor(tokens).view(-1, 2, 2)
        given = model._first_call(0, 1)[1]
        spread = {
            name: value.expand(len(shown), *value.shape[1:]) if torch.is_tensor(value) else value
            for name, value in given.items()
        }
        with torch.no_grad():
            return pipeline.transformer(shown, **spread).flatten(2).transpose(1, 2).softmax(-1).double()

    start = law_of([(31,) * 4])[0]
    law = torch.zeros(8, 8, 8, 8, dtype=torch.float64)
    for kept in itertools.combinations(range(4), 2):
        masked = [i for i in range(4) if i not in kept]
        pairs = list(itertools.product(range(8), repeat=2))
        middles = [tuple(dict(zip(kept, pair, strict=True)).get(i, 31) for i in range(4)) for pair in pairs]
        for (a, b), probs in zip(pairs, law_of(middles), strict=True):
            weight = start[kept[0], a] * start[kept[1], b] / 6
            index = [slice(None)] * 4
            index[kept[0]], index[kept[1]] = a, b
            law[tuple(index)] += weight * torch.outer(probs[masked[0]], probs[masked[1]])
    assert float(law.sum()) == pytest.approx(1, abs=1e-6)

    def decoded(tokens):
        return model._decoded(0, tokens.view(-1, 2, 2))

    every = torch.tensor(list(itertools.product(range(8), repeat=4)))
    with torch.no_grad():
        rewards = brightness(decoded(every)).double()
    p = law.flatten()
    z = float((p * rewards.exp()).sum())
    target = float((p * rewards.exp() * rewards).sum()) / z
    groups = 150
    result = steer(
        pipeline, ["a cat"] * groups, reward_scale=1.0, num_particles=4, ess_threshold=1.0, call=call,
        reward_schedule=fklit.Schedule(0, 1),
    )  # fmt: skip
    assert bool(result.resampled.any())
    ratio = result.log_z.exp() / z
    error = float(ratio.std()) / math.sqrt(groups)
    away = ((result.log_weights.exp() * result.rewards).sum(1) - target) * ratio
    spread = float(away.std()) / math.sqrt(groups)
    print(
        f"E[Z]/Z {float(ratio.mean()):.4f} +- {error:.4f}, mean reward off by {float(away.mean()):.4f} +- {spread:.4f}"
    )
    assert abs(float(ratio.mean()) - 1) < 4 * error < 0.2
    assert abs(float(away.mean())) < 4 * spread < 0.2


def test_predictions_at_hand_move_with_the_particles_and_change_nothing(pipeline):
    ancestors = torch.tensor([[2, 0, 2]])
    ends = []
    for looks in (False, True):
        model = AmusedModel(pipeline, ["a cat"], CALL)
        noise = group_generators(3, 1)
        state = model.initial(1, 3, noise)
        for t in range(5):
            state, ratio = model.step(state, t, torch.zeros(1, 3), noise)
            assert (ratio == 0).all()
            if t == 2:
                state = model.clean_samples(state, noise)[0] if looks else state
                assert (state.groups[0].logits is not None) == looks
                state = select(state, ancestors)
        ends.append(model.finished(state)[1])
    assert torch.equal(*ends)


def test_groups_do_not_depend_on_their_neighbors_and_chunks_have_the_same_bits(pipeline):
    together = steer(pipeline, reward_scale=1.0, num_particles=3, max_batch=2, num_sweeps=1)
    alone = steer(
        pipeline, PROMPTS[1:], reward_scale=1.0, num_particles=3, max_batch=2, prompt_indices=[1], num_sweeps=1
    )
    assert torch.equal(together.samples[1], alone.samples[0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"num_images_per_prompt": 2},
            "num_images_per_prompt for AmusedPipeline, got 2; omit it: set num_part",
        ),
        ({"latents": None}, "omit it: particles begin with masks"),
        ({"num_inference_steps": 0}, "expected num_inference_steps as an integer of at least 1, got 0"),
        ({"negative_prompt": ["a", "b"]}, "expected negative_prompt as one text for all prompts, got"),
        ({"strength": 1}, "expected pipeline_kwargs among num_draws, .* got strength; omit it"),
    ],
)
def test_odd_arguments_give_one_line(pipeline, given, message):
    with pytest.raises(ValueError, match=message) as caught:
        steer(pipeline, reward_scale=1.0, call=given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["AmusedImg2ImgPipeline", "AmusedInpaintPipeline", "VQDiffusionPipeline"])
@pytest.mark.parametrize("potential", ["difference", "terminal"])
def test_other_pictures_of_tokens_are_refused_by_name(name, potential):
    row = rows()[name]
    with pytest.raises(UnsupportedPipelineError, match=rf"^{name} .* no adapter of fklit steers; use AmusedPipeline"):
        fklit.steer(
            row.make()[0],
            "a cat",
            reward=brightness,
            reward_scale=1.0,
            potential=potential,
            pipeline_kwargs=row.given(),
        )

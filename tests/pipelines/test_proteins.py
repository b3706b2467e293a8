"""Protein design steered: the pipeline's own bits, two schedulers' particles moved together, odd inputs."""

import pytest
import torch
from tiny_proteins import STEPS, TOKENS, call_of, chain_features, tiny_proteina

import fklit
from fklit.feynman_kac.randomness import group_generators
from fklit.feynman_kac.trees import join, select
from fklit.pipelines.proteins import ProteinDesign, radius_of_gyration
from fklit.pipelines.proteins.calls import base_seed, particle_generators
from fklit.pipelines.proteins.model import ProteinModel
from fklit.pipelines.sampler import DeterministicSamplerError
from fklit.report.writing import write_prompt
from fklit.steering.own_steps import name_of


def compact(designs):
    return -10 * radius_of_gyration(designs)


class Size(fklit.rewards.Reward):
    """A reward of designs and of nothing else."""

    accepts, needs_prompts = "structure", False

    def score(self, samples, prompts):
        return torch.tensor([len(design.bb_ca) for design in samples])


def inputs(rows=2):
    return call_of(chain_features(rows))


@pytest.fixture(scope="module")
def pipeline():
    return tiny_proteina()


def steer(pipeline, prompts=None, rows=2, **given):
    call = {**inputs(rows), **given.pop("call", {})}
    return fklit.steer(pipeline, prompts, **{"reward": compact, "seed": 5, "pipeline_kwargs": call, **given})


def own(pipeline, row, number, **call):
    """The pipeline's own call for one row, with the generators of its particles."""
    base = base_seed(group_generators(5, [row])[0])
    given = inputs()
    one = {name: value[row : row + 1] for name, value in given.items() if torch.is_tensor(value)}
    features = {name: value[row : row + 1] for name, value in given["conditioning_features"].items()}
    generators = particle_generators(base, range(number), torch.device("cpu"))
    return pipeline(**one, conditioning_features=features, num_designs_per_prompt=number, generator=generators, **call)


@pytest.mark.parametrize("number", [1, 3])
def test_at_scale_zero_the_designs_are_the_pipelines_own_bit_for_bit(pipeline, number):
    every = fklit.Schedule(0, 1)  # rewards look before every step, and must change nothing
    before = torch.get_rng_state()
    result = steer(pipeline, reward_scale=0.0, num_particles=number, reward_schedule=every)
    assert torch.equal(torch.get_rng_state(), before)
    assert result.modality == "structure" and result.samples.shape == (2, number, TOKENS, 37, 3)
    for row in range(2):
        expected = own(pipeline, row, number)
        assert torch.equal(result.samples[row], expected.coords_nm)
        for slot, design in enumerate(result.items[row]):
            assert isinstance(design, ProteinDesign)
            for name in ("coords_nm", "residue_type", "emit_mask", "atom_mask", "bb_ca"):
                assert torch.equal(getattr(design, name), getattr(expected, name)[slot]), name
        # The second row's first token is given and its last is padding: neither is designed.
        assert result.items[row][0].emit_mask.tolist() == ([True] * 5, [False, True, True, True, False])[row]


def test_partial_diffusion_begins_where_the_pipelines_own_does(pipeline):
    torch.manual_seed(3)
    more = {"coords_nm": torch.randn(2, TOKENS, 37, 3), "atom37_mask": torch.ones(2, TOKENS, 37, dtype=torch.bool)}
    times = {"partial_t_bb_ca": 0.3, "partial_t_local_latents": 0.2}
    result = steer(pipeline, reward_scale=0.0, num_particles=2, call={**more, **times})
    for row in range(2):
        expected = own(pipeline, row, 2, **{name: value[row : row + 1] for name, value in more.items()}, **times)
        assert torch.equal(result.samples[row], expected.coords_nm)


def test_steered_designs_are_more_compact_and_the_cost_is_counted(pipeline):
    steered = steer(pipeline, reward_scale=5.0, num_particles=8, reward_schedule=fklit.Schedule(0, 2))
    plain = steer(pipeline, reward_scale=0.0, num_particles=8)
    assert bool(steered.resampled.any())
    assert float(steered.reward_mean.mean()) > float(plain.reward_mean.mean())
    assert steered.rewards[0, 3] == pytest.approx(-10 * float(radius_of_gyration([steered.items[0][3]])), rel=1e-5)
    # A score's prediction is the next step's, but for the one before the first step.
    assert steered.budget.denoiser_calls == 2 * 8 * (STEPS + 1)
    assert steered.budget.decodes == 2 * 8 * (len(steered.steps) + 1)


def test_the_states_of_both_schedulers_and_their_prediction_move_together(pipeline):
    ancestors = torch.tensor([[2, 0, 2]])
    given = inputs(1)
    del given["conditioning_features"]["condition_CoordinateGroup_1_atom"]  # whose labels are drawn for each slot
    ends = []
    for looks in (False, True):
        model = ProteinModel(pipeline, given, num_groups=1)
        noise = group_generators(3, 1)
        state = model.initial(1, 3, noise)
        for t in range(STEPS):
            state, ratio = model.step(state, t, torch.zeros(1, 3), noise)
            assert (ratio == 0).all()
            if t == 2:
                state = model.clean_samples(state, noise)[0] if looks else state
                assert (state.groups[0].ahead is not None) == looks
                before, state = state, select(state, ancestors)
                for name in ("bb_ca", "local_latents", "logits"):
                    moved = getattr(state.groups[0], name)
                    assert torch.equal(moved, getattr(before.groups[0], name)[[2, 0, 2]])
                assert torch.equal(state.groups[0].bb_ca[0], state.groups[0].bb_ca[2])
            if t == 3:  # clones part at once, in both
                for name in ("bb_ca", "local_latents"):
                    assert not torch.equal(getattr(state.groups[0], name)[0], getattr(state.groups[0], name)[2])
        both = join(state, state)
        assert both.groups[0].bb_ca.shape[0] == 6
        ends.append(model.finished(state)[1])
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)  # a prediction of the parent is the clone's


def test_the_predicted_clean_state_is_the_pipelines(pipeline):
    """Of the last step, where the pipeline returns its own."""
    model = ProteinModel(pipeline, inputs(1), num_groups=1)
    noise = group_generators(5, 1)
    state = model.initial(1, 2, noise)
    for t in range(STEPS - 1):
        state, _ = model.step(state, t, torch.zeros(1, 2), noise)
    _, designs = model.clean_samples(state, noise)
    given = inputs(1)
    features = given.pop("conditioning_features")
    generators = particle_generators(base_seed(group_generators(5, 1)[0]), range(2), torch.device("cpu"))
    expected = pipeline(
        **given, conditioning_features=features, num_designs_per_prompt=2, generator=generators
    ).clean_bb_ca
    assert torch.equal(torch.stack([design.bb_ca for design in designs]), expected)


def test_groups_do_not_depend_on_their_neighbors_and_chunks_have_the_same_bits(pipeline):
    shared = {"reward_scale": 1.0, "num_particles": 3, "max_batch": 2, "num_sweeps": 1}
    together = steer(pipeline, ["a", "b"], **shared)
    one = {name: value[1:] for name, value in inputs().items() if torch.is_tensor(value)}
    one["conditioning_features"] = {k: v[1:] for k, v in inputs()["conditioning_features"].items()}
    alone = steer(pipeline, "b", call=one, prompt_indices=[1], **shared)
    assert torch.equal(together.samples[1], alone.samples[0])
    assert together.prompts == ["a", "b"]


def test_the_pipeline_is_as_before(pipeline):
    before = own(pipeline, 0, 2).coords_nm
    config = dict(pipeline._progress_bar_config)
    steer(pipeline, reward_scale=1.0, num_particles=2)
    assert pipeline._progress_bar_config == config
    assert "_compiled_call_impl" not in vars(pipeline.transformer)
    assert torch.equal(own(pipeline, 0, 2).coords_nm, before)


def test_the_radius_of_gyration_of_a_square_and_of_nothing():
    square = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [9, 9, 9]])
    mask = torch.tensor([True] * 4 + [False])
    rest = {"residue_type": torch.zeros(5, dtype=torch.long), "atom_mask": torch.zeros(5, 37, dtype=torch.bool)}
    design = ProteinDesign(torch.zeros(5, 37, 3), emit_mask=mask, bb_ca=square, **rest)
    assert radius_of_gyration([design]).tolist() == pytest.approx([0.5**0.5])
    empty = ProteinDesign(torch.zeros(5, 37, 3), emit_mask=~mask & mask, bb_ca=square, **rest)
    with pytest.raises(ValueError, match="expected designs with a designed token"):
        radius_of_gyration([empty])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"padding_mask": None}, "expected pipeline_kwargs with padding_mask for RFD4ProteinaPipeline, got a NoneType"),
        ({"num_designs_per_prompt": 2}, "without num_designs_per_prompt .* got 2; omit it: set num_particles"),
        ({"latents_bb_ca": 1}, "without latents_bb_ca .* particles begin with noise of their own"),
        ({"inverse_folding": True}, "expected inverse_folding=False .* without particles; omit it"),
        ({"steps": 3}, "expected pipeline_kwargs among padding_mask, .* got steps; omit it"),
        ({"token_type": torch.zeros(3, TOKENS)}, r"expected 2 rows of token_type, one a prompt, got \(3, 5\)"),
    ],
)
def test_odd_arguments_give_one_line(pipeline, call, message):
    with pytest.raises(ValueError, match=message) as caught:
        steer(pipeline, ["a", "b"], reward_scale=1.0, call=call)
    assert "\n" not in str(caught.value)


def test_rewards_writers_and_settings_of_pictures_are_refused(pipeline, tmp_path):
    assert name_of(pipeline) == "RFD4ProteinaPipeline"
    with pytest.raises(ValueError, match="expected one of structure samples, as RFD4ProteinaPipeline makes them, got"):
        steer(pipeline, reward=fklit.rewards.JPEGCompressibility(), reward_scale=1.0)
    designs = [ProteinDesign(*[torch.zeros(1)] * 5)]
    with pytest.raises(ValueError, match=r"expected a float tensor of images .* got a list; convert it"):
        fklit.rewards.JPEGCompressibility()(designs)
    assert Size()(designs).tolist() == [1]
    for wrong in (["a"], torch.zeros(1, 5)):
        with pytest.raises(ValueError, match="Size expected a list of designs, got a"):
            Size()(wrong)
    made = steer(pipeline, reward_scale=0.0, num_particles=1)
    with pytest.raises(ValueError, match=r"expected pictures, .* got samples of modality 'structure'"):
        write_prompt(tmp_path, made.record(0), made.items[0], {"prompt": ""})
    with pytest.raises(ValueError, match="as RFD4ProteinaPipeline owns its steps"):
        steer(pipeline, reward_scale=1.0, noise_level=0.5)


def test_schedulers_that_draw_nothing_are_refused_where_particles_must_part():
    still = tiny_proteina(t_lim_ode=0.5, t_lim_ode_below=0.5)
    with pytest.raises(DeterministicSamplerError, match=r"expected schedulers .* widen that window"):
        steer(still, reward_scale=1.0, num_particles=2)
    assert steer(still, reward_scale=1.0, num_particles=1).samples.shape[1] == 1

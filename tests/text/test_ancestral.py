"""The sampler on case B, whose 256 states are enumerated, and its bookkeeping on a small network."""

import math

import pytest
import torch
from enumerable_text import Rewarded, ancestral, lean
from worlds import MaskedWorld

from fklit.feynman_kac import normalize, particle_gibbs, run
from fklit.text import DiffusionTransformer, TransformerSettings
from fklit.text.ancestral import AncestralModel, TextState
from fklit.text.denoising import Denoising
from fklit.text.noise_schedule import LogLinearSchedule


@pytest.fixture(scope="module")
def world():
    return MaskedWorld()


@pytest.mark.parametrize("tilted", [False, True], ids=["base", "tilted"])
class TestCaseB:
    @pytest.mark.parametrize("sweeps", [0, 2])
    def test_converges_to_the_target(self, world, tilted, sweeps):
        model = Rewarded(ancestral(world, lean(world) if tilted else None), world)
        result = particle_gibbs(
            model, num_sweeps=sweeps, num_particles=20_000, ess_threshold=1.0,
            generator=torch.Generator().manual_seed(1),
        )  # fmt: skip
        states = world.index(result.samples["text"].tokens).flatten()
        law = torch.zeros(256, dtype=torch.float64).scatter_add(0, states, normalize(result.log_weights).flatten())
        variation, error = float((law - world.target).abs().sum() / 2), abs(float(result.log_z) - math.log(world.z))
        print(f"{tilted=}, {sweeps=}: total variation {variation:.4f}, error of log Z {error:.4f}")
        assert variation < 0.06 and error < 0.04
        # Copies are asked for once: there are 256 texts at most.
        assert result.budget.denoiser_calls <= 4 * 256 * (sweeps + 1)

    def test_evidence_is_unbiased(self, world, tilted):
        model = ancestral(world, lean(world) if tilted else None)
        model.start = model.start.expand(4000, -1)
        result = run(
            Rewarded(model, world), num_groups=4000, num_particles=4, ess_threshold=1.0,
            generator=torch.Generator().manual_seed(3),
        )  # fmt: skip
        ratio = result.log_z.exp() / world.z
        error = float(ratio.std()) / math.sqrt(4000)
        assert abs(float(ratio.mean()) - 1) < 3 * error < 0.1


def test_a_tilt_that_weighs_less_varies_less(world):
    spread = []
    for proposal in (None, lean(world)):
        model = ancestral(world, proposal)
        model.start = model.start.expand(2000, -1)
        generator = torch.Generator().manual_seed(5)
        result = run(Rewarded(model, world), num_groups=2000, num_particles=4, ess_threshold=0.0, generator=generator)
        spread.append(float(result.log_z.exp().std()))
    assert spread[1] < 0.8 * spread[0]


def test_base_law_is_the_enumerated_one(world):
    model = ancestral(world)
    result = run(model, num_particles=40_000, generator=torch.Generator().manual_seed(0))
    assert (result.log_weights - math.log(1 / 40_000)).abs().max() < 1e-9 and float(result.log_z) == 0.0
    counts = world.index(result.samples.tokens).flatten().bincount(minlength=256) / 40_000
    error = (world.p_model * (1 - world.p_model) / 40_000).sqrt()
    assert ((counts - world.p_model).abs() <= 5 * error + 1e-12).all()


def test_clean_texts_have_the_product_of_the_marginals(world):
    model = ancestral(world)
    tokens = torch.tensor([[[3, 2, 3, 0]] * 3000])
    state = model.predict(TextState(tokens))
    texts = model.draw_clean(state, 5, torch.Generator().manual_seed(0))
    assert texts.shape == (1, 3000, 5, 4) and (texts[..., 1] == 2).all() and (texts[..., 3] == 0).all()
    expected = world.marginal[world.index(tokens[0, 0])]
    for position in (0, 2):
        found = texts[..., position].flatten().bincount(minlength=4)[:3] / 15_000
        assert (found - expected[position]).abs().max() < 5 * math.sqrt(0.25 / 15_000)
    assert model.budget.denoiser_calls == 1


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    made = DiffusionTransformer(TransformerSettings(vocab_size=20, width=16, layers=1, heads=2)).eval()
    torch.nn.init.normal_(made.embedding.weight)
    return made


def small(network, max_batch=4, **given):
    start = torch.full((2, 12), 3)
    start[0, :2] = torch.tensor([7, 9])
    denoising = Denoising(network, mask=3, never=(0, 1, 2), max_batch=max_batch, **given)
    return AncestralModel(denoising, start, num_steps=30, schedule=LogLinearSchedule())


def generators():
    return [torch.Generator().manual_seed(seed) for seed in (1, 2)]


class Watched:
    """Asks for predictions at some steps, as rewards do, and forgets them if told to."""

    def __init__(self, model, *, keeps):
        self.model, self.keeps, self.num_steps = model, keeps, model.num_steps

    def initial(self, *given):
        return self.model.initial(*given)

    def step(self, state, t, log_weights, generator):
        state, ratio = self.model.step(state, t, log_weights, generator)
        if t in (3, 4, 10, 11, 20):
            state = self.model.predict(state)
        if not self.keeps:
            state = TextState(state.tokens)
        return state, ratio


def test_what_is_kept_changes_nothing_bit_for_bit_and_saves_calls(network):
    results, calls = [], []
    for keeps in (True, False):
        model = small(network)
        results.append(run(Watched(model, keeps=keeps), num_groups=2, num_particles=5, generator=generators()))
        calls.append(model.budget.denoiser_calls)
    assert torch.equal(results[0].samples.tokens, results[1].samples.tokens)
    assert calls[0] < calls[1]


def test_predictions_have_the_same_bits_at_all_and_at_some_positions(network):
    denoising = Denoising(network, mask=3, max_batch=4)
    torch.manual_seed(0)
    tokens = torch.randint(4, 20, (9, 12)).masked_fill(torch.rand(9, 12) < 0.5, 3)
    everything = denoising.log_probs(tokens, tokens == 3)
    at = (tokens == 3) & (torch.rand(9, 12) < 0.3)
    assert torch.equal(denoising.log_probs(tokens, at), everything[at[tokens == 3]])


def test_prompts_stay_excluded_tokens_never_come_and_idle_particles_cost_nothing(network):
    model = small(network)
    result = run(model, num_groups=2, num_particles=5, generator=generators())
    tokens = result.samples.tokens
    assert (tokens[0, :, :2] == torch.tensor([7, 9])).all()
    assert not torch.isin(tokens, torch.tensor([0, 1, 2, 3])).any()
    # 5 + 5 particles, 10 and 12 masks, 30 steps: at most one call for each unmasked token.
    assert model.budget.denoiser_calls <= 5 * 10 + 5 * 12 < 30 * 10


def test_groups_do_not_depend_on_their_neighbors(network):
    both = run(small(network), num_groups=2, num_particles=5, generator=generators()).samples.tokens
    alone = small(network)
    alone.start = alone.start[1:]
    found = run(alone, num_groups=1, num_particles=5, generator=generators()[1:]).samples.tokens
    assert torch.equal(found[0], both[1])


def test_low_temperature_takes_the_likeliest_token(network):
    model = small(network, temperature=1e-4)
    state = model.initial(2, 1, None)
    state, _ = model.step(state, 29, torch.zeros(2, 1), torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = network(model.start)
    logits[..., :4] = -torch.inf
    masked = model.start == 3
    assert torch.equal(state.tokens[:, 0][masked], logits.argmax(-1)[masked])


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (torch.zeros(1, 5), "expected logits of 3 positions from the denoiser, got \\(1, 5\\)"),
        (torch.full((3, 5), math.nan), "expected finite logits from function, got NaN"),
    ],
)
def test_odd_denoisers_are_refused(logits, message):
    model = AncestralModel(
        Denoising(lambda tokens, at: logits, mask=3), torch.full((1, 3), 3), num_steps=1, schedule=LogLinearSchedule()
    )
    with pytest.raises(ValueError, match=message):
        run(model, num_particles=1)


@pytest.mark.parametrize("max_batch", [None, 4])
def test_denoisers_without_logits_are_refused(max_batch):
    denoising = Denoising(lambda tokens, at: None, mask=3, max_batch=max_batch)
    model = AncestralModel(denoising, torch.full((1, 3), 3), num_steps=1, schedule=LogLinearSchedule())
    with pytest.raises(TypeError, match="expected a tensor of logits from function, got NoneType"):
        run(model, num_particles=1)


def test_numbers_out_of_range_are_refused(network):
    with pytest.raises(ValueError, match="expected temperature above 0"):
        Denoising(network, mask=3, temperature=0.0)
    with pytest.raises(ValueError, match="expected max_batch of at least 1"):
        Denoising(network, mask=3, max_batch=0)
    with pytest.raises(ValueError, match="expected 2 groups"):
        run(small(network), num_groups=3, num_particles=1)
    with pytest.raises(ValueError, match="expected num_steps of at least 1"):
        AncestralModel(Denoising(network, mask=3), torch.zeros(1, 1), num_steps=0, schedule=LogLinearSchedule())

"""Which calls inject noise, asked of the scheduler itself; and the sibling that does."""

import pytest
import torch
from schedulers import NOISE, make

from fklit.pipelines.families import stochastic_sibling
from fklit.pipelines.stochasticity import noisy_calls


def _ask(scheduler, **options):
    scheduler.set_timesteps(4)
    sample = torch.randn(1, 4, 4, 4)
    arguments = {"model_output": torch.randn_like(sample), "sample": sample, **options}
    calls = range(len(scheduler.timesteps))
    return tuple(i for i, noisy in noisy_calls(scheduler, arguments, list(scheduler.timesteps), calls).items() if noisy)


@pytest.mark.parametrize("name", NOISE)
def test_noise_map(name):
    assert _ask(make(name)) == NOISE[name]


def test_eta_counts():
    assert _ask(make("DDIMScheduler"), eta=1.0)[:3] == (0, 1, 2)
    assert _ask(make("TCDScheduler"), eta=0.0) == ()


def test_nothing_is_left_changed():
    scheduler = make("KDPM2AncestralDiscreteScheduler")
    scheduler.set_timesteps(4)
    state = torch.get_rng_state()
    before = {key: value for key, value in vars(scheduler).items() if not isinstance(value, torch.Tensor)}
    sample = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    noisy_calls(scheduler, {"model_output": sample, "sample": sample}, list(scheduler.timesteps), {2})
    assert torch.equal(state, torch.get_rng_state())
    after = {key: value for key, value in vars(scheduler).items() if not isinstance(value, torch.Tensor)}
    assert str(before) == str(after)


def test_answers_are_remembered_for_a_state_of_the_scheduler(monkeypatch):
    """The same question steps nothing; another eta, grid, table or denoiser's NaN is another question."""
    from fklit.pipelines import stochasticity

    tried = []
    monkeypatch.setattr(
        stochasticity, "_step", lambda scheduler, call, seed, step=stochasticity._step: (
            tried.append(1), step(scheduler, call, seed)
        )[1],
    )  # fmt: skip
    stochasticity._remembered.cache_clear()

    def asked(scheduler, **options):
        tried.clear()
        return _ask(scheduler, **options), bool(tried)

    assert asked(make("DDIMScheduler"), eta=1.0)[1]
    first = _ask(make("DDIMScheduler"), eta=1.0)
    assert asked(make("DDIMScheduler"), eta=1.0) == (first, False)
    assert asked(make("DDIMScheduler"), eta=0.0) == ((), True)
    assert asked(make("DDIMScheduler"), eta=0.0) == ((), False)
    changed = make("DDIMScheduler")
    changed.alphas_cumprod = changed.alphas_cumprod * 0.999
    assert asked(changed, eta=1.0)[1]
    strange = make("DDIMScheduler")
    strange.helper = object()
    assert asked(strange, eta=1.0)[1] and asked(strange, eta=1.0)[1], "of unknown content: tried every time"
    assert asked(make("DDPMScheduler"))[1] and not asked(make("DDPMScheduler"))[1]
    broken = torch.full((1, 4, 4, 4), torch.nan)
    assert asked(make("DDPMScheduler"), model_output=broken)[1] and asked(make("DDPMScheduler"), model_output=broken)[1]


@pytest.mark.parametrize("name", [n for n in NOISE if not n.startswith("TCD")])
def test_sibling_injects_noise(name):
    scheduler = make(name)
    sibling, eta, description = stochastic_sibling(scheduler)
    assert len(_ask(sibling, **({} if eta is None else {"eta": eta}))) >= 3
    assert type(sibling).__name__ in description
    assert (sibling is scheduler) == (type(sibling) is type(scheduler) and "sde" not in description) or ":sde" in name
    assert sibling.config.beta_end == scheduler.config.beta_end


def test_sibling_of_a_singlestep_solver_with_v_prediction_keeps_it():
    import diffusers

    scheduler = diffusers.PNDMScheduler(prediction_type="v_prediction", steps_offset=1, skip_prk_steps=True)
    sibling, eta, _ = stochastic_sibling(scheduler)
    assert type(sibling).__name__ == "DDIMScheduler"
    assert (sibling.config.prediction_type, sibling.config.steps_offset, eta) == ("v_prediction", 1, 1.0)
    assert not sibling.config.clip_sample, "a latent must not be clipped because DDIM's default says so"

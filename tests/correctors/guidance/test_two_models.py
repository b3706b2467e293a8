"""Two exact pipelines at once: means, variances and log Z of their product and of autoguidance, and what is refused."""

import math

import pytest
import torch
from mixtures import FIRST, SECOND, experts, truth
from tiny import tiny_ddpm, tiny_stable_diffusion

import fklit
from fklit.analytic import GaussianMixture
from fklit.analytic.mixture_pipeline import MixturePipeline
from fklit.correctors import ComposedPrompt, Target
from fklit.pipelines.noise_levels import StepLevels
from fklit.pipelines.second_model import DifferentModelsError


def _mixture(law, name="DDPMScheduler", **options) -> MixturePipeline:
    import diffusers

    plain = {} if name.startswith("Euler") else {"clip_sample": False}
    return MixturePipeline({"it": law}, law, getattr(diffusers, name)(**{**plain, **options}))


def _run(good, bad, *, steps=60, particles=400, groups=4, **options):
    """Independent groups, one result."""
    return fklit.correct(
        _mixture(good),
        ["it"] * groups,
        guiding_pipeline=_mixture(bad),
        num_particles=particles,
        scheduler="keep",
        pipeline_kwargs={"num_inference_steps": steps},
        **options,
    )


def _figures(run, center=None):
    """Mean, variance (around its own mean, or `center`) and log Z of each group, (3, B)."""
    x, weights = run.samples.flatten(1).double(), run.log_weights.exp()
    mean = (weights * x).sum(dim=1)
    around = mean.unsqueeze(1) if center is None else center
    variance = (weights * (x - around).square()).sum(dim=1)
    return torch.stack([mean, variance, run.log_z])


def _deviations(run, exact):
    """Of mean, variance and log Z from the truth, in standard errors over groups."""
    found = _figures(run, exact.mean)
    known = torch.tensor([exact.mean, exact.variance, exact.log_z], dtype=torch.float64)
    return ((found.mean(dim=1) - known) / (found.std(dim=1) / found.shape[1] ** 0.5)).tolist()


first, second, _ = experts()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["autoguidance", "product"])
def test_autoguidance_and_product_are_exact(way) -> None:
    """At all 1,000 steps of the scheduler; the variance is taken around the exact mean.

    DDPM draws with too small a variance in long steps: 0.41, 0.48, 0.50 of the product at 100, 500, 1,000 steps, where
    the truth is 0.499. The product is one of laws whose weights 400 particles can carry without a control.
    """
    if way == "product":
        good, bad = GaussianMixture([[-0.6], [0.9]], [0.5, 0.4], [0.4, 0.6]), GaussianMixture([[0.2]], 0.8)
        target, options = Target.product([good.on(first.path), bad.on(first.path)]), {"exponents": (1.0, 1.0)}
    else:
        good, bad = SECOND, FIRST
        target, options = Target.guided(second, first, 2.0), {"guidance_scale": 2.0}
    run = _run(good, bad, steps=1000, particles=400, groups=8, **options)
    assert all(abs(d) < 3 for d in _deviations(run, truth(target)))


@pytest.mark.slow
def test_autoguidance_is_near_its_law_and_the_heuristic_is_not() -> None:
    exact = truth(Target.guided(second, first, 2.0))
    found = _figures(_run(SECOND, FIRST, guidance_scale=2.0)).mean(dim=1)
    assert abs(float(found[0]) - exact.mean) < 0.1 and abs(float(found[2]) - exact.log_z) < 0.15
    plain = _figures(_run(SECOND, FIRST, guidance_scale=2.0, correction=0.0)).mean(dim=1)
    assert float(found[1]) == pytest.approx(exact.variance, rel=0.25)
    assert float(plain[1]) > exact.variance + 0.3


@pytest.mark.slow
def test_a_product_is_near_its_law() -> None:
    exact = truth(Target.product([second, first]))
    found = _figures(_run(SECOND, FIRST, exponents=(1.0, 1.0))).mean(dim=1)
    assert float(found[1]) == pytest.approx(exact.variance, rel=0.15)
    assert float(found[2]) == pytest.approx(exact.log_z, abs=0.25)


def test_a_model_and_itself_is_itself() -> None:
    """p^w p^(1 - w) = p: no weight, and the base pipeline's samples."""
    run = _run(SECOND, SECOND, guidance_scale=3.0, steps=20, particles=50, groups=1)
    assert float(run.log_weights.exp().max()) == pytest.approx(1 / 50) and float(run.log_z) == pytest.approx(
        0, abs=1e-6
    )
    generators = fklit.feynman_kac.group_generators(0, [0]) * 50
    base = _mixture(SECOND)(
        ["it"], guidance_scale=1.0, num_inference_steps=20, num_images_per_prompt=50, generator=generators
    )
    torch.testing.assert_close(run.samples[0], base.images, atol=1e-4, rtol=1e-4)
    assert run.budget.denoiser_calls == 2 * 20 * 50


def test_the_weight_of_a_product_is_that_of_guidance_where_the_exponents_sum_to_1() -> None:
    from fklit.correctors.guidance.two_models import log_z_of_noise, product_weight
    from fklit.correctors.guidance.weight import guidance_weight

    predictions = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    levels = StepLevels(0.6, 0.8, 0.7, 0.7)
    both, exponents = list(predictions), (2.5, -1.5)
    small = StepLevels(0.6, 0.8, 0.6001, (1 - 0.6001**2) ** 0.5)
    found, known = product_weight(both, exponents, x, small), guidance_weight(both, exponents, small)
    torch.testing.assert_close(found, known, rtol=1e-3, atol=1e-9)
    assert log_z_of_noise(exponents, 3, levels) == pytest.approx(0.0)
    variance = 0.8**2
    square = -0.5 * math.log(4 * math.pi * variance)  # the integral of the square of a normal density
    assert log_z_of_noise((1.0, 1.0), 1, levels) == pytest.approx(square)


def test_stable_diffusion_with_a_second_model(tmp_path) -> None:
    good, bad = tiny_stable_diffusion(seed=0), tiny_stable_diffusion(seed=1)
    bad.vae = good.vae
    kwargs = {"num_inference_steps": 4, "eta": 1.0, "height": 16, "width": 16}
    for options in ({"guidance_scale": 2.0}, {"exponents": (1.0, 1.0)}):
        run = fklit.correct(
            good,
            ["a cat", "a dog"],
            guiding_pipeline=bad,
            num_particles=2,
            max_batch=3,
            pipeline_kwargs=kwargs,
            **options,
        )
        assert bool(run.log_z.isfinite().all()) and float(run.log_weight_std.abs().sum()) > 0
    # The guiding model counts, and is evaluated with its own text encoder.
    plain = fklit.correct(good, "a cat", num_particles=2, guidance_scale=1.0, pipeline_kwargs=kwargs)
    other = fklit.correct(
        good,
        "a cat",
        guiding_pipeline=bad,
        num_particles=2,
        correction=0.0,
        exponents=(0.0, 1.0),
        pipeline_kwargs=kwargs,
    )
    own = fklit.correct(bad, "a cat", num_particles=2, guidance_scale=1.0, pipeline_kwargs=kwargs)
    torch.testing.assert_close(other.samples, own.samples, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(plain.samples, own.samples, atol=1e-3)


def test_what_cannot_be_right_is_refused_by_name() -> None:
    good, bad = _mixture(SECOND), _mixture(FIRST)

    def call(second_one=bad, first_one=good, prompt="it", **options):
        return fklit.correct(
            first_one, prompt, guiding_pipeline=second_one, scheduler="keep", num_particles=2, **options
        )

    with pytest.raises(DifferentModelsError, match="expected two models, got one"):
        call(good)
    with pytest.raises(DifferentModelsError, match="expected two models on one noise path"):
        call(_mixture(FIRST, beta_end=0.012))
    with pytest.raises(DifferentModelsError, match="of one prediction_type, got epsilon and v_prediction"):
        call(_mixture(FIRST, prediction_type="v_prediction"))
    with pytest.raises(ValueError, match="exponents expected a positive sum"):
        call(exponents=(1.0, -1.0))
    with pytest.raises(ValueError, match="expected a guiding pipeline, got none"):
        call(None, exponents=(1.0, 1.0))
    with pytest.raises(ValueError, match="expected plain prompts"):
        call(prompt=ComposedPrompt(["it"], [2.0]))
    with pytest.raises(ValueError, match="expected no negative_prompt"):
        call(pipeline_kwargs={"negative_prompt": "x"})
    with pytest.raises(ValueError, match="increment='kernel' expected exponents of sum 1"):
        call(exponents=(1.0, 1.0), increment="kernel")
    one, other = tiny_stable_diffusion(seed=0), tiny_stable_diffusion(seed=1)
    with pytest.raises(DifferentModelsError, match="encoders have other weights"):
        call(other, one)
    other.vae.register_to_config(scaling_factor=0.5)
    with pytest.raises(DifferentModelsError, match="scaling_factor of the latents"):
        call(other, one)
    with pytest.raises(DifferentModelsError, match="of one"):
        call(tiny_ddpm(), one)


def test_the_task_and_its_yaml_take_a_second_model() -> None:
    from jsonargparse import ArgumentParser
    from lightning.pytorch import LightningModule

    from fklit.correctors.guidance.task import GuidanceTask

    source = {"class_path": "fklit.pipelines.source.PipelineSource", "init_args": {"path": "fklit:emoji_scenes"}}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningModule, "model")
    given = {
        "class_path": "fklit.correctors.guidance.task.GuidanceTask",
        "init_args": {"source": source, "guiding_source": source, "exponents": [1.0, 1.0], "num_particles": 2},
    }
    task = parser.instantiate(parser.parse_object({"model": given})).model
    assert isinstance(task, GuidanceTask) and task.sampling.exponents == (1.0, 1.0)
    assert task.settings()["guiding_source"] == task.settings()["source"]
    assert task.guiding_source is not task.source
    with pytest.raises(ValueError, match="expected a guiding_source"):
        GuidanceTask(task.source, exponents=(1.0, 1.0))

"""Names of version 0.1 and what they are called now: a row for each, so that old configurations say what to change.

Old names may hold hyphens, which are dropped: they keep words that are no longer used out of a search for them.
"""

import importlib
from collections.abc import Mapping


def _without_hyphens(table: Mapping[str, str]) -> dict[str, str]:
    return {old.replace("-", ""): new for old, new in table.items()}


# YAML key -> new key, of whichever class takes the new one.
KEYS = _without_hyphens(
    {
        "call": "pipeline_kwargs",
        "empty-_share": "caption_dropout",
        "normal-ise": "normalize",
        "num_swarms": "num_groups",
        "optim-iser": "optimizer",
        "resample": "resample_schedule",
        "rub-bish_share": "distractor_share",
        "schedule": "reward_schedule",
        "weigh": "weight_schedule",
    }
)

# What only checkpoints of EqPropTask in version 0.1 hold.
OLD_CHECKPOINT_KEY = "optim-iser_settings".replace("-", "")

# Class or function -> where it is now.
NAMES = _without_hyphens(
    {
        "CIFAR10": "fklit.data.CIFAR10DataModule",
        "CIFAR100": "fklit.data.CIFAR100DataModule",
        "CorrectorRun": "fklit.correctors.SimulationResult",
        "CorrectorTask": "fklit.correctors.guidance.task.GuidanceTask",
        "Digits": "fklit.data.DigitsDataModule",
        "EmojiBoxes": "fklit.emoji.EmojiBoxesDataModule",
        "EmojiPairs": "fklit.emoji.EmojiPairsDataModule",
        "EmojiScenes": "fklit.emoji.EmojiScenesDataModule",
        "EmojiTiles": "fklit.emoji.EmojiTilesDataModule",
        "EncodedScenes": "fklit.emoji.latents.EncodedScenesDataModule",
        "FashionMNIST": "fklit.data.FashionMNISTDataModule",
        "GuidedResult": "fklit.correctors.GuidanceResult",
        "ImageNet32": "fklit.data.ImageNet32DataModule",
        "MixtureData": "fklit.data.mixtures.MixtureDataModule",
        "ParticleRun": "fklit.feynman_kac.ParticleResult",
        "SteeringWriter": "fklit.callbacks.SampleWriter",
        "Sw-armCollapseWarning": "fklit.correctors.WeightDegeneracyWarning",
        "Sw-armDataModule": "fklit.data.SimulationDataModule",
        "Sw-armTask": "fklit.correctors.simulation.task.SimulationTask",
        "Sw-armWriter": "fklit.callbacks.SimulationWriter",
    }
)

# Module or package -> where it is now.
MODULES = _without_hyphens(
    {
        "fklit.callbacks.prediction_writer": "fklit.callbacks.sample_writer",
        "fklit.callbacks.sw-arm_writer": "fklit.callbacks.simulation_writer",
        "fklit.correctors.api": "fklit.correctors.guidance.api",
        "fklit.correctors.checks": "fklit.correctors.simulation.diagnostics",
        "fklit.correctors.control": "fklit.correctors.simulation.control",
        "fklit.correctors.conversions": "fklit.correctors.targets.conversions",
        "fklit.correctors.corrector": "fklit.correctors.simulation.corrector",
        "fklit.correctors.ctmc": "fklit.correctors.discrete.ctmc",
        "fklit.correctors.expert": "fklit.correctors.targets.expert",
        "fklit.correctors.exponents": "fklit.correctors.targets.exponents",
        "fklit.correctors.guidance": "fklit.correctors.guidance.run",
        "fklit.correctors.guidance_weight": "fklit.correctors.guidance.weight",
        "fklit.correctors.guided_result": "fklit.correctors.guidance.result",
        "fklit.correctors.increments": "fklit.correctors.simulation.increments",
        "fklit.correctors.masked": "fklit.correctors.discrete.masked",
        "fklit.correctors.path": "fklit.correctors.targets.path",
        "fklit.correctors.prompt_divergence": "fklit.correctors.guidance.prompt_divergence",
        "fklit.correctors.prompt_layout": "fklit.correctors.guidance.prompt_layout",
        "fklit.correctors.prompts": "fklit.correctors.guidance.prompts",
        "fklit.correctors.proposals": "fklit.correctors.simulation.proposals",
        "fklit.correctors.simulate": "fklit.correctors.simulation.simulate",
        "fklit.correctors.start": "fklit.correctors.simulation.start",
        "fklit.correctors.sw-arm_task": "fklit.correctors.simulation.task",
        "fklit.correctors.target": "fklit.correctors.targets.target",
        "fklit.correctors.targets": "fklit.correctors.targets.compositions",
        "fklit.correctors.task": "fklit.correctors.guidance.task",
        "fklit.correctors.tilt": "fklit.correctors.targets.tilt",
        "fklit.correctors.trained": "fklit.correctors.targets.trained",
        "fklit.data.atomic": "fklit.atomic",
        "fklit.data.emoji_art": "fklit.emoji.art",
        "fklit.data.emoji_boxes": "fklit.emoji.boxes",
        "fklit.data.emoji_exam": "fklit.emoji.evaluation_set",
        "fklit.data.emoji_hard": "fklit.emoji.hard_negatives",
        "fklit.data.emoji_pairs": "fklit.emoji.pairs",
        "fklit.data.emoji_prompts": "fklit.emoji.prompts",
        "fklit.data.emoji_rubbish": "fklit.emoji.distractors",
        "fklit.data.emoji_scene_data": "fklit.emoji.scene_data",
        "fklit.data.emoji_scenes": "fklit.emoji.scenes",
        "fklit.data.emoji_tiles": "fklit.emoji.tiles",
        "fklit.data.mixture": "fklit.data.mixtures",
        "fklit.data.sw-arms": "fklit.data.simulations",
        "fklit.eqprop.optim-isers": "fklit.eqprop.optimizers",
        "fklit.models": "fklit.pipelines",
        "fklit.models.call": "fklit.pipelines.call",
        "fklit.models.decode": "fklit.pipelines.decode",
        "fklit.models.denoised": "fklit.pipelines.denoised",
        "fklit.models.describe": "fklit.sampling.describe",
        "fklit.models.fingerprint": "fklit.fingerprint",
        "fklit.models.gaussian": "fklit.analytic.gaussian",
        "fklit.models.halves": "fklit.pipelines.guidance_predictions",
        "fklit.models.images": "fklit.pipelines.images",
        "fklit.models.meter": "fklit.sampling.resource_monitor",
        "fklit.models.microbatch": "fklit.pipelines.microbatch",
        "fklit.models.mixture_pipeline": "fklit.analytic.mixture_pipeline",
        "fklit.models.mixtures": "fklit.analytic.mixtures",
        "fklit.models.noise_levels": "fklit.pipelines.noise_levels",
        "fklit.models.pipeline": "fklit.pipelines.interception",
        "fklit.models.population": "fklit.sampling.result",
        "fklit.models.population_run": "fklit.sampling.run",
        "fklit.models.reward_term": "fklit.sampling.reward_term",
        "fklit.models.sampler": "fklit.pipelines.sampler",
        "fklit.models.sampling_task": "fklit.sampling.task",
        "fklit.models.score_network": "fklit.correctors.targets.denoiser",
        "fklit.models.source": "fklit.pipelines.source",
        "fklit.models.stochasticity": "fklit.pipelines.stochasticity",
        "fklit.report.svg": "fklit.report.shapes",
        "fklit.steering.demo": "fklit.demo.comparison",
        "fklit.training": "fklit.emoji.training",
        "fklit.training.autoencoder": "fklit.emoji.training.autoencoder",
        "fklit.training.clip": "fklit.emoji.training.clip",
        "fklit.training.degrade": "fklit.emoji.training.degrade",
        "fklit.training.denoised_means": "fklit.emoji.training.denoised_means",
        "fklit.training.detector": "fklit.emoji.training.detector",
        "fklit.training.export": "fklit.emoji.training.export",
        "fklit.training.latents": "fklit.emoji.latents",
        "fklit.training.schedule": "fklit.emoji.training.schedule",
        "fklit.training.score_model": "fklit.correctors.targets.score_model_task",
        "fklit.training.text_to_image": "fklit.emoji.training.text_to_image",
        "fklit.training.tokenizer": "fklit.emoji.training.tokenizer",
    }
)


def renamed_path(old: str) -> str | None:
    """The path of a class, function or module that has another name now.

    Args:
        old: A dotted path of fklit, or the short name of a class.

    Returns:
        The path where it is now, or None where it has no other name.
    """
    package, _, name = old.rpartition(".")
    if package and not old.startswith("fklit."):
        return None
    if name in NAMES:
        return NAMES[name]
    module, rest = old, ""
    while module:
        if module in MODULES and _exists(new := MODULES[module] + rest):
            return new
        module, _, last = module.rpartition(".")
        rest = f".{last}{rest}"
    return None


def no_attribute(module: str, name: str) -> AttributeError:
    """The error of a module that has no such attribute, with the name it has now if it was renamed.

    Args:
        module: Name of the module.
        name: Name of the attribute.
    """
    new = renamed_path(f"{module}.{name}")
    hint = f"; it was renamed to {new!r}" if new else ""
    return AttributeError(f"module {module!r} has no attribute {name!r}{hint}")


def _exists(path: str) -> bool:
    """Whether a module, or a name in one, can be imported."""
    try:
        importlib.import_module(path)
    except ImportError:
        module, _, name = path.rpartition(".")
        try:
            return hasattr(importlib.import_module(module), name)
        except ImportError:
            return False
    return True

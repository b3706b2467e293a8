"""Names of version 0.1 and what they are called now: a row for each, so that old configurations say what to change.

Old names may hold hyphens, which are dropped: they keep words that are no longer used out of a search for them.
"""

import importlib
from collections.abc import Iterable


def _table(*rows: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((old.replace("-", ""), new) for old, new in rows)


# YAML key -> new key. Of several rows with one old key that counts whose new key the class takes, the first of these.
KEYS = _table(
    ("blocks", "weights"),
    ("call", "pipeline_kwargs"),
    ("double", "dtype"),
    ("empty-_share", "caption_dropout"),
    ("fade", "strength"),
    ("least", "min_weight"),
    ("max_steps", "max_iterations"),
    ("normal-ise", "normalize"),
    ("num_sw-arms", "num_groups"),
    ("of", "reward_input"),
    ("optim-iser", "optimizer"),
    ("pool", "pool_groups"),
    ("populations", "layers"),
    ("resample", "resample_schedule"),
    ("rub-bish_share", "distractor_share"),
    ("schedule", "reward_schedule"),
    ("schedule", "reward_scale"),
    ("standard-ise", "standardize"),
    ("start", "initial"),
    ("steps_per_phase", "iterations_per_phase"),
    ("sweeps", "iterations"),
    ("timed", "time_dependent"),
    ("turns", "num_periods"),
    ("un-settled", "unconverged"),
    ("weigh", "weight_schedule"),
)

# Argument of a class that has no other name but another place: (class, argument) -> where it is now.
MOVED_KEYS: dict[tuple[str, str], str] = {
    (task, "metrics"): "the callback MetricsCallback, which `validate` and `test` of every task take: move it to "
    "trainer.callbacks as {class_path: MetricsCallback, init_args: {metrics: ...}}"
    for task in ("SteeringTask", "GuidanceTask")
}

# Value of a choice -> new value, where the choice has the new one.
VALUES = _table(("sweep", "sequential"))

# What only checkpoints of EqPropTask in version 0.1 hold.
OLD_CHECKPOINT_KEY = "optim-iser_settings".replace("-", "")

# Class or function -> where it is now.
NAMES = _table(
    ("Annealed", "fklit.Target.annealed"),
    ("CIFAR10", "fklit.data.CIFAR10DataModule"),
    ("CIFAR100", "fklit.data.CIFAR100DataModule"),
    ("Cent-reDetector", "fklit.metrics.CenterDetector"),
    ("Composed", "fklit.Target.composed"),
    ("CorrectorRun", "fklit.correctors.SimulationResult"),
    ("CorrectorTask", "fklit.correctors.guidance.task.GuidanceTask"),
    ("Digits", "fklit.data.DigitsDataModule"),
    ("EmojiBoxes", "fklit.emoji.EmojiBoxesDataModule"),
    ("EmojiPairs", "fklit.emoji.EmojiPairsDataModule"),
    ("EmojiScenes", "fklit.emoji.EmojiScenesDataModule"),
    ("EmojiTiles", "fklit.emoji.EmojiTilesDataModule"),
    ("EncodedScenes", "fklit.emoji.latents.EncodedScenesDataModule"),
    ("ExamDataset", "fklit.emoji.evaluation_set.EvaluationDataset"),
    ("ExamItem", "fklit.emoji.evaluation_set.EvaluationItem"),
    ("FashionMNIST", "fklit.data.FashionMNISTDataModule"),
    ("Gaussian", "fklit.analytic.GaussianMixture.single"),
    ("GeometricAverage", "fklit.Target.geometric_average"),
    ("Guided", "fklit.Target.guided"),
    ("GuidedProduct", "fklit.Target.guided_product"),
    ("GuidedResult", "fklit.correctors.GuidanceResult"),
    ("Halves", "fklit.pipelines.guidance_predictions.GuidancePredictions"),
    ("ImageNet32", "fklit.data.ImageNet32DataModule"),
    ("LateRamp", "fklit.correctors.Ramp.late"),
    ("Meter", "fklit.sampling.resource_monitor.ResourceMonitor"),
    ("MixtureData", "fklit.data.mixtures.MixtureDataModule"),
    ("Normal-isation", "fklit.data.image_batches.Normalization"),
    ("Optim-iserSettings", "fklit.eqprop.OptimizerSettings"),
    ("ParticleRun", "fklit.feynman_kac.ParticleResult"),
    ("Population", "fklit.eqprop.Layer"),
    ("Product", "fklit.Target.product"),
    ("Settled", "fklit.eqprop.RelaxationResult"),
    ("Standard-ised", "fklit.rewards.Standardized"),
    ("Start", "fklit.correctors.InitialGaussian"),
    ("SteeringWriter", "fklit.callbacks.SampleWriter"),
    ("Sw-armCollapseWarning", "fklit.correctors.WeightDegeneracyWarning"),
    ("Sw-armDataModule", "fklit.data.SimulationDataModule"),
    ("Sw-armTask", "fklit.correctors.simulation.task.SimulationTask"),
    ("Sw-armWriter", "fklit.callbacks.SimulationWriter"),
    ("Tilted", "fklit.Target.tilted"),
    ("guidance-_halves", "fklit.pipelines.guidance_predictions.guidance_predictions"),
    ("lineage_figure", "fklit.report.tensorboard.lineage_image"),
    ("normal-ise", "fklit.feynman_kac.normalize"),
    ("potential", "fklit.feynman_kac.get_potential"),
    ("prompt_information", "fklit.correctors.guidance.weight.stepwise_kl"),
    ("resampler", "fklit.feynman_kac.get_resampler"),
    ("screen", "fklit.feynman_kac.weights.apply_nan_policy"),
)

# Module or package -> where it is now.
MODULES = _table(
    ("fklit.callbacks.prediction_writer", "fklit.callbacks.sample_writer"),
    ("fklit.callbacks.sw-arm_writer", "fklit.callbacks.simulation_writer"),
    ("fklit.correctors.api", "fklit.correctors.guidance.api"),
    ("fklit.correctors.checks", "fklit.correctors.simulation.diagnostics"),
    ("fklit.correctors.control", "fklit.correctors.simulation.control"),
    ("fklit.correctors.conversions", "fklit.correctors.targets.conversions"),
    ("fklit.correctors.corrector", "fklit.correctors.simulation.corrector"),
    ("fklit.correctors.ctmc", "fklit.correctors.discrete.ctmc"),
    ("fklit.correctors.expert", "fklit.correctors.targets.expert"),
    ("fklit.correctors.exponents", "fklit.correctors.targets.exponents"),
    ("fklit.correctors.guidance", "fklit.correctors.guidance.run"),
    ("fklit.correctors.guidance_weight", "fklit.correctors.guidance.weight"),
    ("fklit.correctors.guided_result", "fklit.correctors.guidance.result"),
    ("fklit.correctors.increments", "fklit.correctors.simulation.increment"),
    ("fklit.correctors.masked", "fklit.correctors.discrete.masked"),
    ("fklit.correctors.path", "fklit.correctors.targets.paths"),
    ("fklit.correctors.prompt_divergence", "fklit.correctors.guidance.prompt_divergence"),
    ("fklit.correctors.prompt_layout", "fklit.correctors.guidance.prompt_layout"),
    ("fklit.correctors.prompts", "fklit.correctors.guidance.prompts"),
    ("fklit.correctors.proposals", "fklit.correctors.simulation.proposal"),
    ("fklit.correctors.simulate", "fklit.correctors.simulation.api"),
    ("fklit.correctors.start", "fklit.correctors.simulation.initial"),
    ("fklit.correctors.sw-arm_task", "fklit.correctors.simulation.task"),
    ("fklit.correctors.target", "fklit.correctors.targets.target"),
    ("fklit.correctors.targets", "fklit.correctors.targets.target"),
    ("fklit.correctors.task", "fklit.correctors.guidance.task"),
    ("fklit.correctors.tilt", "fklit.correctors.targets.tilt"),
    ("fklit.correctors.trained", "fklit.correctors.targets.trained"),
    ("fklit.data.atomic", "fklit.atomic"),
    ("fklit.data.emoji_art", "fklit.emoji.art"),
    ("fklit.data.emoji_boxes", "fklit.emoji.boxes"),
    ("fklit.data.emoji_exam", "fklit.emoji.evaluation_set"),
    ("fklit.data.emoji_hard", "fklit.emoji.hard_negatives"),
    ("fklit.data.emoji_pairs", "fklit.emoji.pairs"),
    ("fklit.data.emoji_prompts", "fklit.emoji.prompts"),
    ("fklit.data.emoji_rubbish", "fklit.emoji.distractors"),
    ("fklit.data.emoji_scene_data", "fklit.emoji.scene_data"),
    ("fklit.data.emoji_scenes", "fklit.emoji.scenes"),
    ("fklit.data.emoji_tiles", "fklit.emoji.tiles"),
    ("fklit.data.mixture", "fklit.data.mixtures"),
    ("fklit.data.sw-arms", "fklit.data.simulations"),
    ("fklit.eqprop.activations", "fklit.eqprop.network.activations"),
    ("fklit.eqprop.alignment", "fklit.eqprop.analysis.alignment"),
    ("fklit.eqprop.autograd", "fklit.eqprop.learning.autograd"),
    ("fklit.eqprop.backprop", "fklit.eqprop.training.backprop"),
    ("fklit.eqprop.connections", "fklit.eqprop.network.connections"),
    ("fklit.eqprop.derivatives", "fklit.eqprop.network.derivatives"),
    ("fklit.eqprop.dynamics", "fklit.eqprop.relaxation.relax"),
    ("fklit.eqprop.estimators", "fklit.eqprop.learning.estimators"),
    ("fklit.eqprop.execution", "fklit.eqprop.network.execution"),
    ("fklit.eqprop.fields", "fklit.eqprop.relaxation.fields"),
    ("fklit.eqprop.graph", "fklit.eqprop.network.graph"),
    ("fklit.eqprop.homeostasis", "fklit.eqprop.learning.homeostasis"),
    ("fklit.eqprop.networks", "fklit.eqprop.equilibrium_network"),
    ("fklit.eqprop.nudges", "fklit.eqprop.learning.nudges"),
    ("fklit.eqprop.online", "fklit.eqprop.learning.online"),
    ("fklit.eqprop.optim-isers", "fklit.eqprop.training.optimizers"),
    ("fklit.eqprop.phases", "fklit.eqprop.learning.phases"),
    ("fklit.eqprop.pooling", "fklit.eqprop.network.pooling"),
    ("fklit.eqprop.references", "fklit.eqprop.analysis.references"),
    ("fklit.eqprop.responses", "fklit.eqprop.learning.responses"),
    ("fklit.eqprop.softmax", "fklit.eqprop.network.softmax"),
    ("fklit.eqprop.state", "fklit.eqprop.network.state"),
    ("fklit.eqprop.task", "fklit.eqprop.training.task"),
    ("fklit.models", "fklit.pipelines"),
    ("fklit.models.call", "fklit.pipelines.call"),
    ("fklit.models.decode", "fklit.pipelines.decode"),
    ("fklit.models.denoised", "fklit.pipelines.denoised"),
    ("fklit.models.describe", "fklit.sampling.describe"),
    ("fklit.models.fingerprint", "fklit.fingerprint"),
    ("fklit.models.gaussian", "fklit.analytic.gaussian"),
    ("fklit.models.halves", "fklit.pipelines.guidance_predictions"),
    ("fklit.models.images", "fklit.pipelines.images"),
    ("fklit.models.meter", "fklit.sampling.resource_monitor"),
    ("fklit.models.microbatch", "fklit.pipelines.microbatch"),
    ("fklit.models.mixture_pipeline", "fklit.analytic.mixture_pipeline"),
    ("fklit.models.mixtures", "fklit.analytic.mixtures"),
    ("fklit.models.noise_levels", "fklit.pipelines.noise_levels"),
    ("fklit.models.pipeline", "fklit.pipelines.interception"),
    ("fklit.models.population", "fklit.sampling.result"),
    ("fklit.models.population_run", "fklit.sampling.run"),
    ("fklit.models.reward_term", "fklit.sampling.reward_term"),
    ("fklit.models.sampler", "fklit.pipelines.sampler"),
    ("fklit.models.sampling_task", "fklit.sampling.task"),
    ("fklit.models.score_network", "fklit.correctors.targets.denoiser"),
    ("fklit.models.source", "fklit.pipelines.source"),
    ("fklit.models.stochasticity", "fklit.pipelines.stochasticity"),
    ("fklit.report.parts", "fklit.report.formatting"),
    ("fklit.report.svg", "fklit.report.shapes"),
    ("fklit.steering.demo", "fklit.demo.comparison"),
    ("fklit.training", "fklit.emoji.training"),
    ("fklit.training.autoencoder", "fklit.emoji.training.autoencoder"),
    ("fklit.training.clip", "fklit.emoji.training.clip"),
    ("fklit.training.degrade", "fklit.emoji.training.degrade"),
    ("fklit.training.denoised_means", "fklit.emoji.training.denoised_means"),
    ("fklit.training.detector", "fklit.emoji.training.detector"),
    ("fklit.training.export", "fklit.emoji.training.export"),
    ("fklit.training.latents", "fklit.emoji.latents"),
    ("fklit.training.schedule", "fklit.learning_rate"),
    ("fklit.training.score_model", "fklit.correctors.targets.score_model_task"),
    ("fklit.training.text_to_image", "fklit.emoji.training.text_to_image"),
    ("fklit.training.tokenizer", "fklit.emoji.training.tokenizer"),
)


def renamed_word(old: str, accepted: Iterable[str], table: Iterable[tuple[str, str]]) -> str | None:
    """The key or value that is accepted instead of one of an earlier version, or None.

    Args:
        old: The word that was given.
        accepted: The words that are accepted.
        table: `KEYS` or `VALUES`.
    """
    accepted = set(accepted)
    return next((new for word, new in table if word == old and new in accepted), None)


def renamed_path(old: str) -> str | None:
    """The path of a class, function or module that has another name now.

    Args:
        old: A dotted path of fklit, or the short name of a class.

    Returns:
        The shortest path where it is now, or None where it has no other name.
    """
    package, _, name = old.rpartition(".")
    if package and package != "fklit" and not package.startswith("fklit."):
        return None
    if name in (names := dict(NAMES)):
        return None if package and _exports(package, name) else names[name]
    module, rest, modules = old, "", dict(MODULES)
    while module:
        if module in modules:
            new = modules[module]
            public = ".".join(new.split(".")[:2])
            for path in (public + rest, new + rest) if rest else (new,):
                if path != old and _exists(path):
                    return path
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


def _exports(package: str, name: str) -> bool:
    """Whether a package has a name of today that meant something else elsewhere, such as `fklit.rewards.Product`."""
    try:
        return name in getattr(importlib.import_module(package), "__all__", ())
    except ImportError:
        return False


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

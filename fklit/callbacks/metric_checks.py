"""Whether a metric fits a task, said by name before anything is sampled."""

from typing import Any

from lightning.pytorch import LightningModule
from torch import nn
from torchmetrics import Metric

from fklit.metrics.alignment import Alignment
from fklit.metrics.chosen_samples import ChosenSamples
from fklit.metrics.sample_metric import SampleMetric

_KINDS = ("samples", "particles", "classes")
# What tasks and callbacks log themselves.
_TAKEN = {"alignment", "base", "gain", "gain_se", "loss", "reward", "steered", "top1", "top5", "unconverged"}


def check_name(name: str) -> None:
    """Refuse a name under which something else is logged, or that a module cannot have.

    Args:
        name: How the user calls a metric.

    Raises:
        ValueError: It is such a name.
    """
    if not name or "." in name or name in _TAKEN or hasattr(nn.ModuleDict, name):
        raise ValueError(
            f"expected a name of a metric that is free and without dots, got {name!r}; give another one, such as "
            "'clip_score'."
        )


def check_metric(name: str, metric: Metric, task: LightningModule) -> None:
    """Refuse a metric of what the task does not make.

    Args:
        name: How the user calls the metric.
        metric: The metric.
        task: The task.

    Raises:
        ValueError: It does not fit.
    """
    kind, owner, own = getattr(task, "evaluates", None), type(task).__name__, f"{name} ({type(metric).__name__})"
    if kind not in _KINDS:
        raise ValueError(
            f"MetricsCallback expected a task that returns samples or classes, got {owner}; leave the callback out, or "
            "see its documentation for what such a task returns."
        )
    if name in getattr(task, "means", ()):
        raise ValueError(f"{own} expected a name that {owner} does not log itself, got {name!r}; give another one.")
    if isinstance(metric, Alignment):
        raise ValueError(
            f"{own} expected AlignmentCallback, got MetricsCallback; add `class_path: AlignmentCallback` to "
            "trainer.callbacks in its place."
        )
    of_samples = isinstance(metric, SampleMetric | ChosenSamples)
    needs = _needs(metric)
    if kind == "classes" and of_samples:
        raise ValueError(
            f"{own} needs {needs}, expected a metric of classes for {owner}, which has none; give one of "
            "torchmetrics.classification, or leave it out."
        )
    if kind == "particles" and needs != "particles":
        raise ValueError(f"{own} needs {needs}, expected a metric of particles for {owner}; leave it out.")
    if kind == "samples" and not of_samples and type(metric).__module__.startswith("torchmetrics."):
        raise ValueError(
            f"{own} expected ChosenSamples around a metric of torchmetrics, got it bare; write class_path: "
            "ChosenSamples with init_args: {metric: ...}."
        )


def check_start(name: str, metric: Metric, task: Any, *, world_size: int) -> None:
    """Refuse a metric whose run is too small for it, or whose samples it cannot take.

    Args:
        name: How the user calls the metric.
        metric: The metric.
        task: The task, with its weights.
        world_size: Number of processes.

    Raises:
        ValueError: It cannot be computed.
    """
    num_prompts = getattr(task, "num_prompts", None)
    if isinstance(metric, SampleMetric):
        metric.check_run(name, num_prompts=num_prompts, num_particles=getattr(task, "num_particles", None))
        modality = getattr(task, "modality", None)
        if modality is not None and metric.accepts not in ("any", modality):
            raise ValueError(
                f"{name} ({type(metric).__name__}) measures {metric.accepts} samples, expected a metric of {modality} "
                "samples for this task; leave it out."
            )
        refused = None if metric.reward is None or modality is None else metric.reward.refused(modality)
        if refused is not None:
            raise ValueError(
                f"{name} expected a reward that scores {modality} samples, got {refused.display_name}, which scores "
                f"{refused.accepts} samples; give another one"
                + (" (of videos: Frames around it)." if modality == "video" else ".")
            )
    elif num_prompts is not None and world_size > num_prompts:  # they would wait for one that saw none
        raise ValueError(
            f"{name} ({type(metric).__name__}) expected a prompt for each of {world_size} processes, got "
            f"{num_prompts}; use at most {num_prompts} devices."
        )


def _needs(metric: Metric) -> str:
    if isinstance(metric, ChosenSamples):
        return "prompts and images" if metric.pass_prompts else "images"
    if isinstance(metric, SampleMetric):
        if metric.needs_prompts:
            return "prompts and samples"
        return "images" if metric.needs_images else "particles"
    return "particles"

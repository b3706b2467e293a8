"""Callbacks: what is written while and after a run."""

from typing import TYPE_CHECKING, NoReturn

from fklit.callbacks.alignment import AlignmentCallback
from fklit.callbacks.base_comparison import RewardHackingWarning
from fklit.callbacks.classification_writer import ClassificationWriter
from fklit.callbacks.classifier_export import ClassifierExport
from fklit.callbacks.metrics import MetricsCallback
from fklit.callbacks.report import Report
from fklit.callbacks.same_model import SameModelWarning
from fklit.callbacks.sample_writer import SampleWriter
from fklit.callbacks.simulation_writer import SimulationWriter
from fklit.callbacks.tensorboard_particles import TensorBoardParticles

__all__ = [
    "AlignmentCallback",
    "ClassificationWriter",
    "ClassifierExport",
    "MetricsCallback",
    "Report",
    "RewardHackingWarning",
    "SameModelWarning",
    "SampleWriter",
    "SimulationWriter",
    "TensorBoardParticles",
]

if not TYPE_CHECKING:  # type checkers know the names of today

    def __getattr__(name: str) -> NoReturn:
        from fklit.renamed import no_attribute

        raise no_attribute(__name__, name)

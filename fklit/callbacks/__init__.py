"""Callbacks: what is written while and after a run."""

from fklit.callbacks.alignment import AlignmentCallback
from fklit.callbacks.classification_writer import ClassificationWriter
from fklit.callbacks.prediction_writer import SteeringWriter
from fklit.callbacks.report import Report
from fklit.callbacks.swarm_writer import SwarmWriter
from fklit.callbacks.tensorboard_particles import TensorBoardParticles

__all__ = [
    "AlignmentCallback",
    "ClassificationWriter",
    "Report",
    "SteeringWriter",
    "SwarmWriter",
    "TensorBoardParticles",
]

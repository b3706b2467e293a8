"""Method 3: equilibrium propagation without weight symmetry, with the Jacobian homeostatic loss.

The packages are a stack: `network` (layers, links, activations), `relaxation` (fields and fixed points), `learning`
(nudges, estimators, the autograd function, homeostasis), on these `EquilibriumNetwork` and its presets, and on top
`training` (Lightning tasks) and `analysis` (references and alignment). The tasks load on first use, as they import
Lightning.
"""

import importlib
from typing import TYPE_CHECKING, Any

from fklit.eqprop.analysis.alignment import error_vectors, symmetry_score, weight_angles
from fklit.eqprop.analysis.references import dense_errors, equilibrium_jacobian, unrolled
from fklit.eqprop.equilibrium_network import EquilibriumNetwork
from fklit.eqprop.learning.centered import Centered
from fklit.eqprop.learning.estimators import (
    Cauchy,
    ComplexStep,
    CorrectedNudge,
    ExactResponse,
    OneSided,
    RecurrentBackprop,
    Symmetric,
)
from fklit.eqprop.learning.homeostasis import Homeostasis
from fklit.eqprop.learning.nudges import CrossEntropyNudge, MSENudge, Nudge
from fklit.eqprop.learning.online import Online
from fklit.eqprop.learning.responses import Estimator, Response
from fklit.eqprop.network.activations import (
    Activation,
    ClippedReLU,
    DoubleSiLU,
    HardSigmoid,
    Identity,
    ShiftedSigmoid,
    Tanh,
    is_holomorphic,
)
from fklit.eqprop.network.connections import Connection, Convolution, Dense
from fklit.eqprop.network.execution import Execution
from fklit.eqprop.network.graph import Layer
from fklit.eqprop.network.links import Link
from fklit.eqprop.network.recurrent import RecurrentNetwork
from fklit.eqprop.network.residual import Residual
from fklit.eqprop.presets import MLP, VGG, ConvNet, LoopNet
from fklit.eqprop.relaxation.result import Equilibrium, RelaxationResult
from fklit.eqprop.relaxation.settings import Relaxation

if TYPE_CHECKING:
    from fklit.eqprop.classifier import EquilibriumClassifier, load_classifier, save_classifier
    from fklit.eqprop.training.backprop import BackpropTask
    from fklit.eqprop.training.optimizers import OptimizerSettings
    from fklit.eqprop.training.task import EqPropTask

_LAZY = {
    "BackpropTask": "fklit.eqprop.training.backprop",
    "EqPropTask": "fklit.eqprop.training.task",
    "EquilibriumClassifier": "fklit.eqprop.classifier",
    "OptimizerSettings": "fklit.eqprop.training.optimizers",
    "load_classifier": "fklit.eqprop.classifier",
    "save_classifier": "fklit.eqprop.classifier",
}

__all__ = [
    "MLP",
    "VGG",
    "Activation",
    "BackpropTask",
    "Cauchy",
    "Centered",
    "ClippedReLU",
    "ComplexStep",
    "Connection",
    "ConvNet",
    "Convolution",
    "CorrectedNudge",
    "CrossEntropyNudge",
    "Dense",
    "DoubleSiLU",
    "EqPropTask",
    "Equilibrium",
    "EquilibriumClassifier",
    "EquilibriumNetwork",
    "Estimator",
    "ExactResponse",
    "Execution",
    "HardSigmoid",
    "Homeostasis",
    "Identity",
    "Layer",
    "Link",
    "LoopNet",
    "MSENudge",
    "Nudge",
    "OneSided",
    "Online",
    "OptimizerSettings",
    "RecurrentBackprop",
    "RecurrentNetwork",
    "Relaxation",
    "RelaxationResult",
    "Residual",
    "Response",
    "ShiftedSigmoid",
    "Symmetric",
    "Tanh",
    "dense_errors",
    "equilibrium_jacobian",
    "error_vectors",
    "is_holomorphic",
    "load_classifier",
    "save_classifier",
    "symmetry_score",
    "unrolled",
    "weight_angles",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    from fklit.renamed import no_attribute

    raise no_attribute(__name__, name)

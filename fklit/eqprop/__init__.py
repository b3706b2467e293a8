"""Method 3: equilibrium propagation without weight symmetry, with the Jacobian homeostatic loss."""

from fklit.eqprop.activations import Activation, DoubleSiLU, HardSigmoid, Identity, ShiftedSigmoid, Tanh, is_holomorphic
from fklit.eqprop.alignment import error_vectors, symmetry_score, weight_angles
from fklit.eqprop.connections import Connection, Convolution, Dense, Link
from fklit.eqprop.dynamics import Relaxation, Settled
from fklit.eqprop.estimators import (
    Cauchy,
    ComplexStep,
    CorrectedNudge,
    ExactResponse,
    OneSided,
    RecurrentBackprop,
    Symmetric,
)
from fklit.eqprop.execution import Execution
from fklit.eqprop.graph import Population
from fklit.eqprop.homeostasis import Homeostasis
from fklit.eqprop.networks import Equilibrium, EquilibriumNetwork
from fklit.eqprop.nudges import CrossEntropyNudge, MSENudge, Nudge
from fklit.eqprop.online import Online
from fklit.eqprop.presets import MLP, ConvNet, LoopNet
from fklit.eqprop.references import dense_errors, equilibrium_jacobian, unrolled
from fklit.eqprop.responses import Estimator, Response

__all__ = [
    "MLP",
    "Activation",
    "Cauchy",
    "ComplexStep",
    "Connection",
    "ConvNet",
    "Convolution",
    "CorrectedNudge",
    "CrossEntropyNudge",
    "Dense",
    "DoubleSiLU",
    "Equilibrium",
    "EquilibriumNetwork",
    "Estimator",
    "ExactResponse",
    "Execution",
    "HardSigmoid",
    "Homeostasis",
    "Identity",
    "Link",
    "LoopNet",
    "MSENudge",
    "Nudge",
    "OneSided",
    "Online",
    "Population",
    "RecurrentBackprop",
    "Relaxation",
    "Response",
    "Settled",
    "ShiftedSigmoid",
    "Symmetric",
    "Tanh",
    "dense_errors",
    "equilibrium_jacobian",
    "error_vectors",
    "is_holomorphic",
    "symmetry_score",
    "unrolled",
    "weight_angles",
]

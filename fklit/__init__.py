"""fklit: Feynman-Kac steering and correctors of pretrained diffusion models, and equilibrium propagation, on Lightning.

Public names load on first use, so that ``import fklit`` costs milliseconds and imports neither torch nor diffusers.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# name -> module that defines it. The modules below are attributes of the package, too (``fklit.rewards.CLIPScore``).
_NAMES = {
    "Annealed": "fklit.correctors.targets",
    "ComposedPrompt": "fklit.correctors.prompts",
    "GeometricAverage": "fklit.correctors.targets",
    "Guided": "fklit.correctors.targets",
    "ParticleRun": "fklit.feynman_kac.result",
    "ParticleSystem": "fklit.feynman_kac.particles",
    "PipelineSource": "fklit.models.source",
    "Product": "fklit.correctors.targets",
    "Schedule": "fklit.feynman_kac.schedule",
    "SteeringResult": "fklit.steering.result",
    "SteeringRun": "fklit.steering.run",
    "Tilted": "fklit.correctors.targets",
    "correct": "fklit.correctors.api",
    "simulate": "fklit.correctors.simulate",
    "steer": "fklit.steering.api",
}
_MODULES = (
    "callbacks",
    "correctors",
    "data",
    "eqprop",
    "feynman_kac",
    "metrics",
    "models",
    "rewards",
    "steering",
    "training",
)

__all__ = [
    "Annealed",
    "ComposedPrompt",
    "GeometricAverage",
    "Guided",
    "ParticleRun",
    "ParticleSystem",
    "PipelineSource",
    "Product",
    "Schedule",
    "SteeringResult",
    "SteeringRun",
    "Tilted",
    "__version__",
    "correct",
    "simulate",
    "steer",
]

if TYPE_CHECKING:
    from fklit.correctors.api import correct
    from fklit.correctors.prompts import ComposedPrompt
    from fklit.correctors.simulate import simulate
    from fklit.correctors.targets import Annealed, GeometricAverage, Guided, Product, Tilted
    from fklit.feynman_kac.particles import ParticleSystem
    from fklit.feynman_kac.result import ParticleRun
    from fklit.feynman_kac.schedule import Schedule
    from fklit.models.source import PipelineSource
    from fklit.steering.api import steer
    from fklit.steering.result import SteeringResult
    from fklit.steering.run import SteeringRun


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"fklit.{name}")
    raise AttributeError(f"module 'fklit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES, *_MODULES})

"""fklit: Feynman-Kac steering and correctors of pretrained diffusion models, and equilibrium propagation, on Lightning.

Public names load on first use, so that `import fklit` costs milliseconds and imports neither torch nor diffusers.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

# name -> module that defines it. The modules below are attributes of the package, too (`fklit.rewards.CLIPScore`).
_NAMES = {
    "Calibration": "fklit.steering.calibration.record",
    "ComposedPrompt": "fklit.correctors.guidance.prompts",
    "ParticleResult": "fklit.feynman_kac.result",
    "ParticleSystem": "fklit.feynman_kac.particles",
    "PipelineSource": "fklit.pipelines.source",
    "Schedule": "fklit.feynman_kac.schedule",
    "SteeringResult": "fklit.steering.result",
    "SteeringRun": "fklit.steering.run",
    "Target": "fklit.correctors.targets.target",
    "calibrate": "fklit.steering.calibration.api",
    "correct": "fklit.correctors.guidance.api",
    "simulate": "fklit.correctors.simulation.api",
    "steer": "fklit.steering.api",
}
_MODULES = (
    "analytic",
    "callbacks",
    "correctors",
    "data",
    "emoji",
    "eqprop",
    "feynman_kac",
    "metrics",
    "molecules",
    "pipelines",
    "rewards",
    "sampling",
    "steering",
    "text",
)

__all__ = [
    "Calibration",
    "ComposedPrompt",
    "ParticleResult",
    "ParticleSystem",
    "PipelineSource",
    "Schedule",
    "SteeringResult",
    "SteeringRun",
    "Target",
    "__version__",
    "calibrate",
    "correct",
    "simulate",
    "steer",
]

if TYPE_CHECKING:
    from fklit.correctors.guidance.api import correct
    from fklit.correctors.guidance.prompts import ComposedPrompt
    from fklit.correctors.simulation.api import simulate
    from fklit.correctors.targets.target import Target
    from fklit.feynman_kac.particles import ParticleSystem
    from fklit.feynman_kac.result import ParticleResult
    from fklit.feynman_kac.schedule import Schedule
    from fklit.pipelines.source import PipelineSource
    from fklit.steering.api import steer
    from fklit.steering.calibration.api import calibrate
    from fklit.steering.calibration.record import Calibration
    from fklit.steering.result import SteeringResult
    from fklit.steering.run import SteeringRun


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"fklit.{name}")
    from fklit.renamed import no_attribute

    raise no_attribute(__name__, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES, *_MODULES})

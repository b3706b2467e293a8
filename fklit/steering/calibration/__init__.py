"""Calibration of steering: what scores on the way say of the end, and potentials, schedules and scales from it."""

from fklit.steering.calibration.curves import Curve, LinearCurve, LogisticCurve, fit_curve
from fklit.steering.calibration.figures import StepFigures, step_figures
from fklit.steering.calibration.fitting import fit_curves, held_out_loss
from fklit.steering.calibration.pool import mean_effective, nats, scale_for
from fklit.steering.calibration.potential import Calibrated, CalibrationWarning, FittedPotential
from fklit.steering.calibration.proposal import Proposal, propose, propose_steps
from fklit.steering.calibration.record import Calibration
from fklit.steering.calibration.summary import summarize, table

__all__ = [
    "Calibrated",
    "Calibration",
    "CalibrationWarning",
    "Curve",
    "FittedPotential",
    "LinearCurve",
    "LogisticCurve",
    "Proposal",
    "StepFigures",
    "fit_curve",
    "fit_curves",
    "held_out_loss",
    "mean_effective",
    "nats",
    "propose",
    "propose_steps",
    "scale_for",
    "step_figures",
    "summarize",
    "table",
]

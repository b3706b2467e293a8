"""Defaults of the public API, as its documentation states them; a change here changes results of users in silence."""

import inspect

from fklit import eqprop as e
from fklit.callbacks import AlignmentCallback

NUDGED = e.Relaxation(max_iterations=20, tolerance=1e-6)
LINEAR = e.Relaxation(max_iterations=200, tolerance=1e-6)
POLICY = {"free": None, "estimator": None, "unconverged": None, "execution": None}
LINK = {"reciprocal": True, "tied": False, "angle": 90.0, "gain": 1.0}
INITIAL = {"tied": False, "angle": 0.0, "gain": 1.0}
GRAPH = {"output": None, "num_classes": None, "activation": None}


DEFAULTS = [
    (e.Layer, {"activation": None, "bias": True}),
    (e.Dense, LINK),
    (e.Convolution, {"kernel_size": 3, "padding": 1, "stride": 1, "pool": 2, "pooling": "softmax"} | LINK),
    (e.Residual, {"scale": 1.0, "reciprocal": True}),
    (e.ClippedReLU, {"ceiling": 1.0}),
    (e.Execution, {"channels_last": False, "compile": False, "free_precision": "full", "response_precision": "full"}),
    (
        e.Relaxation,
        {
            "max_iterations": 150,
            "tolerance": 1e-4,
            "order": "sequential",
            "rate": 1.0,
            "bound": 1e4,
            "check_every": None,
            "anderson_window": 0,
            "anderson_damping": 1.0,
            "start": "zero",
        },
    ),
    (e.RecurrentNetwork, GRAPH | {"execution": None}),
    (e.EquilibriumNetwork, GRAPH | POLICY),
    (
        e.MLP,
        {"input_shape": (28, 28), "hidden": (256, 256), "num_outputs": 10, "num_classes": 10, "activation": None}
        | INITIAL
        | POLICY,
    ),
    (
        e.LoopNet,
        {"input_shape": (28, 28), "hidden": (256, 256), "num_outputs": 10, "num_classes": 10, "activation": None}
        | {"gain": 1.0}
        | POLICY,
    ),
    (
        e.ConvNet,
        {"input_shape": (3, 32, 32), "channels": (128, 256, 512, 512), "num_classes": 10, "activation": None}
        | INITIAL
        | POLICY,
    ),
    (
        e.VGG,
        {"input_shape": (3, 32, 32), "blocks": ((128,), (256,), (512,), (512,)), "hidden": (), "num_outputs": 10}
        | {"num_classes": 10, "pooling": "softmax", "activation": None}
        | INITIAL
        | {"tied": True}
        | POLICY,
    ),
    (e.OneSided, {"beta": 0.1, "relaxation": None}),
    (e.Symmetric, {"beta": 0.1, "relaxation": None}),
    (e.Centered, {"beta": 0.1, "relaxation": None}),
    (e.CorrectedNudge, {"beta": 0.1, "relaxation": None}),
    (e.Cauchy, {"num_phases": 4, "beta": 0.2, "arithmetic": "split", "relaxation": None}),
    (e.ComplexStep, {"beta": 1e-3, "arithmetic": "split", "relaxation": None}),
    (e.ExactResponse, {"relaxation": None}),
    (e.RecurrentBackprop, {"relaxation": None}),
    (
        e.Online,
        {
            "num_phases": 4,
            "beta": 0.2,
            "iterations_per_phase": 20,
            "num_periods": 1,
            "from_zero": False,
            "tolerance": 0.0,
            "relaxation": None,
        },
    ),
    (
        e.Homeostasis,
        {
            "form": "two_term",
            "weight": 1.0,
            "warmup_steps": 0,
            "probes": 1,
            "normalize": True,
            "sensitivity": True,
            "reconstruction": True,
            "seed": 0,
        },
    ),
    (
        e.EqPropTask,
        {"num_classes": 10, "loss": "cross_entropy", "nudge": "gradient"} | {"homeostasis": None} | {"optimizer": None},
    ),
    (e.EquilibriumClassifier, {"label": None, "metadata_key": "class", "max_batch": None, "pad": False}),
    (e.BackpropTask, {"num_classes": 10, "loss": "cross_entropy", "optimizer": None}),
    (e.is_holomorphic, {"radius": 0.1, "tolerance": 1e-6}),
    (e.error_vectors, {"estimator": None, "relaxation": None}),
    (e.symmetry_score, {"samples": 4, "exact_up_to": 1000, "probes": 100, "seed": 0}),
    (e.unrolled, {"relaxation": None}),
    (AlignmentCallback, {"every_n_epochs": 1, "num_batches": 1, "estimator": None, "symmetry_samples": 4}),
]


def test_signatures():
    found = [
        {p.name: p.default for p in inspect.signature(function).parameters.values() if p.default is not p.empty}
        for function, _ in DEFAULTS
    ]
    assert found == [defaults for _, defaults in DEFAULTS]


def test_what_none_stands_for():
    for estimator in (e.OneSided(), e.Symmetric(), e.Centered(), e.Cauchy()):
        assert estimator.relaxation == NUDGED
    assert e.ComplexStep(0.02).relaxation == e.Relaxation(max_iterations=20, tolerance=1e-6 * 0.02)
    assert e.ExactResponse().relaxation == e.RecurrentBackprop().relaxation == e.CorrectedNudge().relaxation == LINEAR
    assert e.Online(relaxation=e.Relaxation(9, 0.5, "synchronous", 0.7, 3.0)).relaxation == e.Relaxation(
        max_iterations=20, tolerance=0.0, order="synchronous", rate=0.7, bound=3.0
    )
    network = e.MLP((4,), (3,))
    assert network.free == e.Relaxation() and network.execution == e.Execution()
    assert type(network.estimator) is e.Symmetric and type(network.activations[0]) is e.ShiftedSigmoid
    for convolutional in (e.ConvNet((1, 8, 8), (2, 2)), e.VGG((1, 8, 8), ((2,), (2,)))):
        assert convolutional.free == e.Relaxation(max_iterations=250)
        assert type(convolutional.activations[0]) is e.DoubleSiLU
    assert (
        e.EqPropTask(network).optimizer
        == e.OptimizerSettings()
        == e.OptimizerSettings(
            name="adam",
            learning_rate=2e-3,
            momentum=0.9,
            weight_decay=0.0,
            rate_factors={},
            decay_factors={},
            schedule="constant",
        )
    )

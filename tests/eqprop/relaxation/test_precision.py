"""Relaxations run in full float32 whatever TF32 is set to, and put the setting back."""

import pytest
import torch

from fklit.eqprop import MLP, ConvNet
from fklit.eqprop.relaxation.precision import full_precision

BACKENDS = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)


@pytest.fixture
def tf32():
    before = [backend.fp32_precision for backend in BACKENDS]
    for backend in BACKENDS:
        backend.fp32_precision = "tf32"
    yield
    for backend, precision in zip(BACKENDS, before, strict=True):
        backend.fp32_precision = precision


def _now():
    return [backend.fp32_precision for backend in BACKENDS]


def test_the_flags_are_off_inside_and_restored_also_after_an_error(tf32):
    with full_precision():
        assert _now() == ["ieee", "ieee"]
        with full_precision():
            pass
        assert _now() == ["ieee", "ieee"]
    assert _now() == ["tf32", "tf32"]
    with pytest.raises(KeyError), full_precision():
        raise KeyError
    assert _now() == ["tf32", "tf32"] and torch.backends.cudnn.allow_tf32 is True


@pytest.mark.parametrize("network", [MLP((4,), [5, 5], num_classes=3), ConvNet((1, 8, 8), (2, 3), num_classes=3)])
def test_every_product_of_a_training_step_runs_in_full_precision(network, tf32, monkeypatch):
    """Emulated: each convolution and product of the dynamics notes the flag that a GPU would obey."""
    import torch.nn.functional as F

    seen = []
    for name in ("conv2d", "linear", "conv_transpose2d"):
        original = getattr(F, name)

        def noted(*args, original=original, **kwargs):
            if not args[1].requires_grad or torch.is_grad_enabled() is False:  # the readout is no part of the dynamics
                seen.append(_now()[0])
            return original(*args, **kwargs)

        monkeypatch.setattr(F, name, noted)
    x = torch.rand(3, *network.input_shape)
    torch.nn.functional.cross_entropy(network(x), torch.tensor([0, 1, 2])).backward()
    assert seen and set(seen) == {"ieee"} and _now() == ["tf32", "tf32"]
    assert all(parameter.grad is not None for parameter in network.parameters())

"""Small networks at a free equilibrium, and comparisons, for the tests of equilibrium propagation."""

import torch
import torch.nn.functional as F

from fklit.eqprop import MLP, ConvNet, CrossEntropyNudge, Relaxation

TIGHT = Relaxation(max_iterations=400, tolerance=1e-12)


def images(samples, shape, seed=0, dtype=torch.float64):
    """Smooth pictures in [0, 1], as different from one another as real ones; labels from 0 to 9."""
    generator = torch.Generator().manual_seed(seed)
    channels, sides = (shape[0], shape[1:]) if len(shape) == 3 else (1, (1, *shape))
    coarse = torch.rand(samples, channels, 4 if len(shape) == 3 else 1, 16, generator=generator, dtype=torch.float64)
    x = (2 * F.interpolate(coarse, tuple(sides), mode="bilinear") - 0.6).clamp(0, 1)
    return x.reshape(samples, *shape).to(dtype), torch.randint(10, (samples,), generator=generator)


def mlp(*, tied=False, angle=90.0, gain=0.5, hidden=(64, 64), seed=0, inputs=784, dtype=torch.float64, **more):
    torch.manual_seed(seed)
    more.setdefault("free", TIGHT)
    return MLP((inputs,), hidden, tied=tied, angle=angle, gain=gain, **more).to(dtype)


def convnet(channels, *, tied=True, seed=0, dtype=torch.float64, shape=(3, 32, 32), **more):
    torch.manual_seed(seed)
    more.setdefault("free", TIGHT)
    more.setdefault("angle", 90.0)
    return ConvNet(shape, channels, tied=tied, **more).to(dtype)


def free_equilibrium(network, samples=16, seed=0):
    """A free equilibrium, the cross-entropy as a nudge, and its gradient there as a constant force."""
    x, y = images(samples, network.input_shape, seed, next(network.parameters()).dtype)
    equilibrium = network.free_equilibrium(x)
    nudge = CrossEntropyNudge(y, 10)
    force = [torch.zeros_like(part) for part in equilibrium.state]
    force[network.output] = nudge.force(network, equilibrium.state[network.output])
    return equilibrium, nudge, tuple(force)


def flat(state):
    return torch.cat([part.detach().flatten() for part in state])


def relative(got, wanted):
    return float((flat(got) - flat(wanted)).norm() / flat(wanted).norm())


def cosine(got, wanted):
    return float(F.cosine_similarity(flat(got), flat(wanted), dim=0))


def mean_cosines(left, right):
    """For each layer, the mean over samples."""
    return [float(F.cosine_similarity(a.flatten(1), b.flatten(1)).mean()) for a, b in zip(left, right, strict=True)]


__all__ = ["TIGHT", "convnet", "cosine", "flat", "free_equilibrium", "images", "mean_cosines", "mlp", "relative"]

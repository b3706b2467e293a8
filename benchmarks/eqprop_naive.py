"""The naive loop of `benchmarks/eqprop.py`: complex tensors, autograd in every iteration, one phase after another."""

import cmath
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fklit.eqprop import EquilibriumNetwork
from fklit.eqprop.network.links import ConvolutionLink, DenseLink, Link


def naive_pool(z: Tensor, size: int) -> Tensor:
    """Softmax pooling as one would write it."""
    n, c, h, w = z.shape
    windows = z.reshape(n, c, h // size, size, w // size, size).transpose(3, 4).flatten(4)
    p = (windows - windows.real.amax(-1, keepdim=True)).exp()
    return (p * windows).sum(-1) / p.sum(-1)


def naive_forward(link: Link, s: Tensor, weight: Tensor) -> Tensor:
    """Forward input of a link with any weights of its shape."""
    if isinstance(link, DenseLink):
        return F.linear(s.flatten(1), weight.to(s.dtype))
    assert isinstance(link, ConvolutionLink)
    z = F.conv2d(s, weight.to(s.dtype), padding=link.padding)
    return z if link.pool == 1 else naive_pool(z, link.pool)


def naive_backward(link: Link, s: Tensor, post: Tensor) -> Tensor:
    """Backward input: the transpose of the forward map with the backward weights, by autograd (which conjugates)."""
    with torch.enable_grad():
        s = s.detach().requires_grad_()
        out = naive_forward(link, s, link.aligned_backward_weight().detach())
        (product,) = torch.autograd.grad(out, s, post.conj().reshape(out.shape))
    return product.conj()


def naive_phase(
    network: EquilibriumNetwork, x: Tensor, start: list[Tensor], force: Tensor, iterations: int
) -> list[Tensor]:
    """Iterations with one nudge."""
    state = list(start)
    for _ in range(iterations):
        for color in network.colors:
            new = {}
            for i in color:
                shape, bias = network.layers[i].shape, network.biases[network.names[i]].detach()
                total: Any = bias.reshape(1, *shape) if bias.dim() == 1 else bias
                for name, (pre, post) in network.ends.items():
                    link = network.link(name)
                    if post == i:
                        source = x.to(state[i].dtype) if pre < 0 else state[pre]
                        total = total + naive_forward(link, source, link.forward_weight.detach()).view(-1, *shape)
                    elif pre == i and link.reciprocal:
                        total = total + naive_backward(link, state[i], state[post])
                new[i] = network.activations[i](total + force if i == network.output else total)
            for i, value in new.items():
                state[i] = value
    return state


def naive_step(network: EquilibriumNetwork, x: Tensor, y: Tensor, *, phases: int, beta: float, free: int, nudged: int):
    """Gradients of a step of the naive loop, by name."""
    zero = [x.new_zeros(len(x), *layer.shape) for layer in network.layers]
    with torch.no_grad():
        state = naive_phase(network, x, zero, x.new_zeros(()), free)
    out = state[network.output].requires_grad_()
    loss = F.cross_entropy(network.read((*state[:-1], out)), y)
    (gradient,) = torch.autograd.grad(loss, out)
    size = gradient.flatten(1).norm(dim=1).view(-1, *[1] * (gradient.dim() - 1))
    error = [torch.zeros_like(part) for part in zero]
    with torch.no_grad():
        start = [part.detach().to(x.dtype.to_complex()) for part in state]
        for k in range(phases):
            b = beta * cmath.exp(2j * cmath.pi * k / phases)
            reached = naive_phase(network, x, start, b * gradient / size, nudged)
            for i, part in enumerate(reached):
                error[i] += (part / b).real / phases
    gradients = {}
    for name, (pre, post) in network.ends.items():
        link = network.link(name)
        source = x if pre < 0 else state[pre].detach()
        directions = [("forward_weight", post)]
        if link.backward_weight is not None:
            directions.append(("backward_weight", pre))
        for key, target in directions:
            transposed = key == "backward_weight" and isinstance(link, DenseLink)
            weight = getattr(link, key).detach()
            aligned = (weight.T if transposed else weight).requires_grad_()
            at = source if target == post else source.clone().requires_grad_()
            out = naive_forward(link, at, aligned)
            if target == post:
                product = out
            else:
                (product,) = torch.autograd.grad(out, at, state[post].detach().reshape(out.shape), create_graph=True)
            signal = (error[target] * size.view(-1, *[1] * (error[target].dim() - 1))).reshape(product.shape)
            (found,) = torch.autograd.grad(product, aligned, signal)
            gradients[f"links.{name}.{key}"] = found.T if transposed else found
    for i, name in enumerate(network.names):
        e = error[i] * size.view(-1, *[1] * (error[i].dim() - 1))
        gradients[f"biases.{name}"] = e.sum(0) if e.dim() == 2 else e.sum((0, 2, 3))[:, None, None]
    return gradients

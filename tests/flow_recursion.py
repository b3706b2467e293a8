"""The law of a Gaussian flow under a kernel, by the exact recursion of its covariances."""

import itertools

import torch


def variances(kernel, grid, variance=0.3):
    """Variance at each level of a grid after its first, from that of x and of the x0 before."""
    joint, found, previous = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64)), [], None
    for sigma, after in itertools.pairwise(grid):
        gain = (1 - sigma) * variance / ((1 - sigma) ** 2 * variance + sigma**2)  # x0 = gain x
        step = kernel.coefficients(sigma, after, previous)
        change = 0.0 if previous is None else step.change
        matrix = torch.tensor([[step.sample + (step.denoised + change) * gain, -change], [gain, 0.0]]).double()
        joint = matrix @ joint @ matrix.T
        joint[0, 0] += step.std**2
        found.append(float(joint[0, 0]))
        previous = sigma
    return found

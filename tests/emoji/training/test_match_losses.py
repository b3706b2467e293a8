"""The losses of the shipped reward: closed forms by loops, and what is unknown counts nothing."""

import math

import pytest
import torch

from fklit.emoji.training.match_losses import grounding_loss, match_loss, patch_loss


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_match_loss_against_a_loop():
    logits = random(3, 4, 2)
    truth, known = random(3, 4, 2, seed=1) > 0.3, random(3, 4, 2, seed=2) > -0.8
    truth[0, :, 1] = False  # a caption without a picture
    positive, negative, shares = [], [], []
    for group in range(3):
        for caption in range(2):
            scores = logits[group, :, caption].tolist()
            used = [i for i in range(4) if known[group, i, caption]]
            right = [i for i in used if truth[group, i, caption]]
            positive += [math.log1p(math.exp(-scores[i])) for i in right]
            negative += [math.log1p(math.exp(scores[i])) for i in used if i not in right]
            if right:
                shares.append(
                    math.log(sum(math.exp(scores[i]) for i in used) / sum(math.exp(scores[i]) for i in right))
                )
    pairwise, share = match_loss(logits, truth, known)
    assert pairwise.item() == pytest.approx((sum(positive) / len(positive) + sum(negative) / len(negative)) / 2)
    assert 0 < len(shares) < 6 and share.item() == pytest.approx(sum(shares) / len(shares))


def test_unknown_pairs_count_nothing():
    logits, truth = random(2, 4, 2).requires_grad_(), random(2, 4, 2, seed=1) > 0
    known = random(2, 4, 2, seed=2) > 0
    losses = match_loss(logits, truth, known)
    (gradient,) = torch.autograd.grad(sum(losses), logits)
    assert (gradient[~known] == 0).all() and (gradient[known] != 0).any()
    other = torch.where(known, logits, 99.0), truth ^ ~known
    assert all(torch.equal(a, b) for a, b in zip(losses, match_loss(*other, known), strict=True))


@pytest.mark.parametrize(("matching", "sure"), [(False, True), (True, True), (True, False), (False, False)])
def test_one_kind_of_pairs_alone_is_finite(matching, sure):
    logits = random(2, 4, 2).float().requires_grad_()
    truth, known = torch.full((2, 4, 2), matching), torch.full((2, 4, 2), sure)
    pairwise, share = match_loss(logits, truth, known)
    sign = -1 if matching else 1
    expected = 0.5 * torch.nn.functional.softplus(sign * logits).mean() if sure else torch.zeros(())
    assert torch.allclose(pairwise, expected) and share == 0
    (pairwise + share).backward()
    assert logits.grad.isfinite().all() and (sure or not logits.grad.any())


def test_the_patch_loss_against_a_loop():
    logits, labels = random(2, 5, 3, 3), (random(2, 3, 3, seed=1) * 3).long().abs().clamp(max=4)
    labels[0, 1] = -100
    total = weights = 0.0
    for n, row, column in [(n, i, j) for n in range(2) for i in range(3) for j in range(3)]:
        label = int(labels[n, row, column])
        if label >= 0:
            weight = 0.2 if label == 2 else 1.0
            total += weight * -logits[n, :, row, column].log_softmax(0)[label].item()
            weights += weight
    assert {2, -100} < set(labels.flatten().tolist())
    assert patch_loss(logits, labels, nothing=2).item() == pytest.approx(total / weights)


def test_patches_without_a_label_count_nothing():
    logits = random(2, 5, 3, 3).float().requires_grad_()
    labels = torch.full((2, 3, 3), -100)
    loss = patch_loss(logits, labels, nothing=4)
    loss.backward()
    assert loss == 0 and not logits.grad.any()
    labels[1, 2, 0] = 4  # the background alone: its weight cancels
    assert patch_loss(logits, labels, nothing=4).item() == pytest.approx(-logits[1, :, 2, 0].log_softmax(0)[4].item())


def test_the_grounding_loss_is_the_mean_distance_of_what_is_known():
    centers = torch.tensor([[[0.25, 0.5], [0.75, 0.5]], [[0.5, 0.25], [math.nan, math.nan]]])
    predicted = torch.full((2, 2, 2), 0.5).requires_grad_()
    loss = grounding_loss(predicted, centers)
    assert loss.item() == pytest.approx((0.25 + 0.25 + 0.25) / 6)
    loss.backward()
    expected = torch.tensor([[[1.0, 0], [-1, 0]], [[0, 1], [0, 0]]]) / 6
    assert torch.allclose(predicted.grad, expected)


def test_grounding_without_a_center_is_zero():
    predicted = torch.full((3, 2, 2), 0.5).requires_grad_()
    loss = grounding_loss(predicted, torch.full((3, 2, 2), math.nan))
    loss.backward()
    assert loss == 0 and not predicted.grad.any()

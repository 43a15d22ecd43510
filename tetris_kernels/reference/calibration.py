"""What `tetris_kernels.calibration` computes, in plain torch: fixed shapes, no host sync."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

# Log-odds of a score beyond +-LIMIT count as that: float32 holds no probability nearer to 1 than 1 - 2^-24.
LIMIT = 16
BINS_PER_UNIT = 4
NUM_BINS = 2 * LIMIT * BINS_PER_UNIT
HALVINGS = 8
ROUNDING = 1e-12  # of sums of float64, relative


def log_odds(scores: Tensor) -> Tensor:
    """[N, K] float32: log(p / (1 - p)) of p = exp(score), within +-LIMIT; NaN stays."""
    scores = scores.detach().float().clamp(max=0)
    # expm1 keeps the digits of 1 - p where p is nearly 1; at p = 1 the logarithm is -inf, and the odds are clamped.
    return (scores - scores.expm1().neg().log()).clamp(-LIMIT, LIMIT)


def calibrated(odds: Tensor, weights: Tensor) -> Tensor:
    """[N, K] float32: log sigmoid(w * odds + b_j), at most 0; weights [1 + (K or more)] are w, b_0, b_1, ..."""
    weights = weights.float()
    return logsigmoid(weights[0] * odds + weights[1 : 1 + odds.shape[1]])


def count_outcomes(
    odds: Tensor,
    lens: Tensor,
    draft_lens: Tensor,
    counts: Tensor,
    coupled: Tensor,
    *,
    num_drafts: int,
    tests_next: bool,
) -> Tensor:
    """[2, num_drafts, NUM_BINS] int64: rejected and accepted drafts, of those that were tested.

    odds: [N, K], K <= num_drafts; drafts of NaN are not counted. lens, draft_lens, counts, coupled: [N], as for
    `Calibration.update`. tests_next: whether the first draft that was not selected was tested.
    """
    position = torch.arange(odds.shape[1], device=odds.device)
    num_accepted = counts[:, None] - 1
    num_tested = torch.minimum(lens + int(tests_next), draft_lens)[:, None]
    # Of a request that sat out num_accepted is -1, so nothing was reached.
    tested = (position <= num_accepted) & (position < num_tested) & ~odds.isnan()
    accepted = position < num_accepted + coupled[:, None]
    bin_ = ((odds.nan_to_num(nan=0.0) + LIMIT) * BINS_PER_UNIT).long().clamp_(0, NUM_BINS - 1)
    cell = (accepted * num_drafts + position) * NUM_BINS + bin_
    # Integers: whatever the order in which a GPU adds them, the sums are the same.
    sums = torch.zeros(2 * num_drafts * NUM_BINS, dtype=torch.int64, device=odds.device)
    return sums.scatter_add_(0, cell.flatten(), tested.long().flatten()).view(2, num_drafts, NUM_BINS)


def fit(weights: Tensor, counts: Tensor, *, ridge: float, steps: int) -> Tensor:
    """[1 + K] float64: `steps` steps from weights (w, b_0, b_1, ...) towards those of the largest posterior.

    counts: [2, K, NUM_BINS] float64, rejected and accepted drafts; each counts with the log-odds of its bin's middle.
    Log-likelihood - ridge / 2 * ((w - 1)^2 + sum of b_j^2) is concave, so there is one maximum.

    Each step is the best one of several. Newton's converges fast near the maximum, but may lead away from afar, where
    nearly all curvature has gone: so halves, quarters, ... of it are tried too. Another one takes tanh(x / 2) / 2x in
    place of the curvature p * (1 - p) at log-odds x. That bounds the likelihood from below by a parabola (Jaakkola and
    Jordan, 2000), so it never leads away.
    """
    odds = (torch.arange(NUM_BINS, dtype=torch.float64, device=counts.device) + 0.5) / BINS_PER_UNIT - LIMIT
    identity = torch.zeros_like(weights)
    identity[:1].fill_(1)  # a number by indexing would be copied from the host, which waits
    parts = 0.5 ** torch.arange(HALVINGS, dtype=torch.float64, device=counts.device)
    rejected, accepted = counts
    total = rejected + accepted
    for _ in range(steps):
        logits = weights[0] * odds + weights[1:, None]
        residual = accepted - total * logits.sigmoid()
        # At 0 both curvatures are 1/4.
        bound = torch.where(logits == 0, 0.25, (logits / 2).tanh() / (2 * logits))
        curvature = total * torch.stack([logits.sigmoid() * (-logits).sigmoid(), bound])
        newton, bounded = _ascent(residual, curvature, odds, (weights - identity) * ridge, ridge)
        ways = weights + torch.cat([parts[:, None] * newton, bounded[None]])
        logits = ways[:, :1, None] * odds + ways[:, 1:, None]
        likelihood = (rejected * logsigmoid(-logits) + accepted * logsigmoid(logits)).sum((1, 2))
        value = likelihood - ridge / 2 * (ways - identity).square().sum(1)
        best = value.amax()
        # Near the maximum values differ by rounding alone: of equals the first, which is Newton's.
        is_best = value >= best - ROUNDING * best.abs()
        is_first = is_best & (is_best.cumsum(0) == 1)
        weights = torch.where(is_first[:, None], ways, 0).sum(0)
    return weights


def _ascent(residual: Tensor, curvature: Tensor, odds: Tensor, shrink: Tensor, ridge: float) -> Tensor:
    """[2, 1 + K]: the gradient by the inverse of each of two curvatures.

    residual: [K, NUM_BINS]. curvature: [2, K, NUM_BINS]. shrink: [1 + K], the ridge's gradient. Each matrix is an
    arrow, since intercepts meet the slope and not each other: solved by elimination.
    """
    slope_slope = (curvature * odds * odds).sum((1, 2)) + ridge
    slope_intercept = (curvature * odds).sum(2)
    intercept_intercept = curvature.sum(2) + ridge
    slope_gradient = (residual * odds).sum() - shrink[0]
    intercept_gradient = residual.sum(1) - shrink[1:]
    ratio = slope_intercept / intercept_intercept
    # What is divided by is at least the ridge, by Cauchy and Schwarz.
    slope = (slope_gradient - (ratio * intercept_gradient).sum(1)) / (slope_slope - (ratio * slope_intercept).sum(1))
    intercepts = intercept_gradient / intercept_intercept - ratio * slope[:, None]
    return torch.cat([slope[:, None], intercepts], 1)

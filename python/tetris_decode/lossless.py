"""Do score, select, pack and accept emit what the target alone would? Counted on chains whose law is known.

Target and drafter are Markov chains, so that the exact law of what requests emit is a product of table entries.
Batches of a few requests with one budget for each batch go through the real stages, many independent batches
per way of selecting. `select` sees one batch at a time; the other stages treat each request by itself and see
all batches at once. What was emitted is compared with the law: the tokens of each request, and those of several
requests together. Every lossless way must fit, and the one that is known to be biased must not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tetris_decode.goodness import Fit, fit, together
from tetris_kernels import Selection, accept, pack, score, select

LEVEL = 0.001  # of all statistics together
REJECTED = 1e-12  # the biased way's p-value is below this
NOISE = 1.5  # standard deviation of the drafter's logits around the target's
CHAINS = 2  # seed of the chains, which are the same for all ways with as many tokens


@dataclass(frozen=True)
class Way:
    """A way to select and accept, and the batch that it is tried on.

    greedy_drafts:     drafts are the drafter's most probable tokens, tested as the only ones.
    temperature:       of the target, or of each request's target.
    draft_temperature: of the drafter.
    preferences:       ragged drafts, floors, ceilings and weights, from earlier steps.
    budget:            drafts verified in a step, in all. Or "earlier": from what was emitted before. Or
                       "threshold": those that survive with a probability of at least a half.
    length:            tokens of each request that are compared, and steps that are made.
    """

    name: str
    kind: str = "token"
    bonus: str = "coupled"
    greedy_drafts: bool = False
    temperature: float | tuple[float, ...] = 1.0
    draft_temperature: float = 1.0
    preferences: bool = False
    budget: int | str = 3
    requests: int = 3
    drafts: int = 3
    vocabulary: int = 3
    length: int = 3
    lossless: bool = True


WAYS = (
    Way("greedy target: token, direct", bonus="direct", temperature=0.0),
    Way("one-hot: token, direct", bonus="direct", greedy_drafts=True),
    Way("one-hot: top, coupled, preferences", kind="top", greedy_drafts=True, preferences=True),
    Way("top, direct", kind="top", bonus="direct"),
    Way("top, direct, preferences", kind="top", bonus="direct", preferences=True, draft_temperature=0.8),
    Way("collision, direct, threshold", kind="collision", bonus="direct", budget="threshold"),
    Way("token, coupled"),
    Way("token, coupled, temperatures", temperature=(0.6, 0.0, 1.5), draft_temperature=1.3),
    Way("token, coupled, preferences", preferences=True, budget="earlier"),
    Way("token, coupled, threshold", budget="threshold"),
    Way("token, coupled, 16 tokens", budget=8, requests=6, drafts=4, vocabulary=16, length=2),
    Way("token, direct", bonus="direct", lossless=False),
)


@dataclass(frozen=True)
class Settings:
    """batches: independent batches for each way."""

    batches: int = 15_000
    seed: int = 0


@dataclass(frozen=True)
class Result:
    """each: the tokens of each request. joint: the first tokens of several requests together."""

    way: Way
    each: Fit
    joint: Fit


@dataclass(frozen=True)
class Report:
    """level: of each single statistic. seconds: the time all took."""

    settings: Settings
    results: tuple[Result, ...]
    level: float
    seconds: float

    def is_as_expected(self, result: Result) -> bool:
        if result.way.lossless:
            return result.each.holds(self.level) and result.joint.holds(self.level)
        return min(result.each.p_value, result.joint.p_value) < REJECTED

    @property
    def holds(self) -> bool:
        """Whether all lossless ways fit, and the biased one is seen to be biased."""
        return all(map(self.is_as_expected, self.results))


def run(settings: Settings, tell: Callable[[str], None] = lambda name: None) -> Report:
    """Try every way; `tell` hears the name of each as it begins.

    Raises:
        ValueError: no batches, or a negative seed.
    """
    if settings.batches < 1:
        raise ValueError(f"batches: expected 1 or more, got {settings.batches}")
    if settings.seed < 0:
        raise ValueError(f"seed: expected 0 or more, got {settings.seed}")
    start = time.perf_counter()
    results = []
    for number, way in enumerate(WAYS):
        tell(way.name)
        results.append(try_way(way, settings.batches, settings.seed * len(WAYS) + number))
    # Two fits with two statistics each.
    level = LEVEL / (4 * sum(way.lossless for way in WAYS))
    return Report(settings, tuple(results), level, time.perf_counter() - start)


def try_way(way: Way, batches: int, seed: int) -> Result:
    target, drafter = chains(way.vocabulary)
    tokens = emit(way, target, drafter, batches, torch.Generator().manual_seed(seed))
    return compare(way, target, tokens)


def chains(vocabulary: int) -> tuple[Tensor, Tensor]:
    """Logits [2, V, V] of target and drafter: of the next token behind a token at an even or an odd position."""
    generator = torch.Generator().manual_seed(CHAINS)
    target = torch.randn(2, vocabulary, vocabulary, generator=generator)
    return target, target + NOISE * torch.randn(target.shape, generator=generator)


def emit(way: Way, target: Tensor, drafter: Tensor, batches: int, generator: torch.Generator) -> Tensor:
    """[batches, requests, length]: what the stages emit in `length` steps. Request r begins behind token r."""
    request = torch.arange(way.requests).repeat(batches)
    anchors, lens = request % way.vocabulary, torch.zeros_like(request)
    temperature = torch.tensor(way.temperature).expand(way.requests).repeat(batches)
    tokens = torch.zeros(len(request), way.length * (way.drafts + 1), dtype=torch.int64)
    for _ in range(way.length):
        draft_ids, draft_logits = propose(way, drafter, anchors, lens, generator)
        preferences = make_preferences(way, request, lens)
        draft_lens = preferences.get("draft_lens")
        scores = score(draft_logits, draft_ids, kind=way.kind, temperature=way.draft_temperature, draft_lens=draft_lens)
        selection = select_batches(scores, budgets(way, scores, lens), preferences)
        packed = pack(
            selection, draft_ids, anchors, lens, capacity=draft_ids.numel() + len(lens), draft_lens=draft_lens
        )
        accepted = accept(
            target[packed.position_ids % 2, packed.input_ids],
            packed,
            draft_ids,
            torch.rand(len(lens), way.drafts + 1, generator=generator),
            draft_logits=None if way.greedy_drafts else draft_logits / way.draft_temperature,
            temperature=temperature,
            bonus=way.bonus,
        )
        # What stands behind the counted tokens is overwritten by the next step.
        tokens.scatter_(1, lens[:, None] + torch.arange(way.drafts + 1), accepted.tokens)
        anchors = accepted.tokens.gather(1, accepted.counts[:, None].long() - 1)[:, 0]
        lens = lens + accepted.counts
    emitted: Tensor = tokens[:, : way.length].unflatten(0, (batches, way.requests))
    return emitted


def propose(
    way: Way, drafter: Tensor, anchors: Tensor, lens: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Drafts [R, K] behind the anchors, and the logits [R, K, V] that they come from."""
    ids, logits, last = [], [], anchors
    for j in range(way.drafts):
        logits.append(drafter[(lens + j) % 2, last])
        if way.greedy_drafts:
            last = logits[-1].argmax(-1)
        else:
            last = torch.multinomial((logits[-1] / way.draft_temperature).softmax(-1), 1, generator=generator)[:, 0]
        ids.append(last)
    return torch.stack(ids, 1), torch.stack(logits, 1)


def make_preferences(way: Way, request: Tensor, lens: Tensor) -> dict[str, Tensor]:
    """Optional arguments of select for each request, from what was emitted before."""
    if not way.preferences:
        return {}
    return {
        "draft_lens": way.drafts - (request + lens) % 3,
        "min_lens": (lens + 1) % 2,
        "max_lens": way.drafts - request % 2,
        "log_weights": 0.4 * (request - lens).float(),
    }


def budgets(way: Way, scores: Tensor, lens: Tensor) -> list[int]:
    """The budget of each batch."""
    if way.budget == "threshold":
        # Keys as select orders them: survival in units of 2^-16 nats, each token's cost truncated.
        keys = (scores.neg().clamp(0, 64) * 65536).int().cumsum(1)
        of_request = (keys <= int(math.log(2) * 65536)).sum(1)
    elif way.budget == "earlier":
        of_request = lens
    else:
        return [int(way.budget)] * (len(lens) // way.requests)
    sums: list[int] = of_request.view(-1, way.requests).sum(1).tolist()
    return sums if way.budget == "threshold" else [1 + n % 5 for n in sums]


def select_batches(scores: Tensor, budgets: list[int], preferences: dict[str, Tensor]) -> Selection:
    """`select` on one batch after the other, as one selection of all their requests."""
    batches = len(budgets)
    parts = [x.unflatten(0, (batches, -1)).unbind() for x in (scores, *preferences.values())]
    lens = torch.cat(
        [
            select(logprobs, budget, **dict(zip(preferences, rows, strict=True))).lens
            for budget, logprobs, *rows in zip(budgets, *parts, strict=True)
        ]
    )
    return Selection(lens, torch.nn.functional.pad(lens.cumsum(0, dtype=torch.int32), (1, 0)))


def compare(way: Way, target: Tensor, tokens: Tensor) -> Result:
    """Fit `tokens` [batches, requests, length] to the law of the target alone."""
    batches, requests, length = tokens.shape
    each = [fit(count(tokens[:, r], way), request_law(way, target, r, length)) for r in range(requests)]
    # As many requests and then as many tokens as leave five samples for each cell, on average.
    size = math.log(max(batches / 5, 1), way.vocabulary)
    together_requests = max(min(requests, int(size)), 1)
    together_length = max(min(length, int(size / together_requests)), 1)
    law = torch.ones(1, dtype=torch.float64)
    for r in range(together_requests):
        law = (law[:, None] * request_law(way, target, r, together_length)).flatten()
    firsts = tokens[:, :together_requests, :together_length].flatten(1)
    return Result(way, together(each), fit(count(firsts, way), law))


def count(tokens: Tensor, way: Way) -> Tensor:
    """[V^n] how often each row of `tokens` [samples, n] occurs."""
    places = torch.tensor([way.vocabulary**i for i in reversed(range(tokens.shape[1]))])
    return torch.bincount(tokens @ places, minlength=way.vocabulary ** tokens.shape[1])


def request_law(way: Way, target: Tensor, request: int, length: int) -> Tensor:
    """[V^length] the target's law of the first tokens of a request."""
    temperature = way.temperature[request] if isinstance(way.temperature, tuple) else way.temperature
    logits = target.double()
    greedy = torch.nn.functional.one_hot(logits.argmax(-1), way.vocabulary).double()
    rows = (logits / temperature).softmax(-1) if temperature else greedy
    law = rows[0, request % way.vocabulary]
    for position in range(1, length):
        law = law.view(-1, way.vocabulary, 1) * rows[position % 2]
    return law.flatten()

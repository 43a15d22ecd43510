"""What the TETRIS paper (arXiv 2502.15197) concludes, and whether simulations do.

The paper's numbers are from its abstract and from notes on it; its full text was not at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tetris_decode.paper import EXTRA, LENGTHS, TETRIS, Setting


@dataclass(frozen=True)
class Finding:
    """claim: of the paper. here: what this simulation says. agrees: "yes", "in part" or "no"."""

    claim: str
    here: str
    agrees: str


def findings(settings: Sequence[Setting]) -> list[Finding]:
    """What the paper concludes, and whether these settings do."""
    best_e = [s.best(TETRIS).choice.e for s in settings]
    rises = [_rises(s, k) for s in settings for k in LENGTHS]
    behind = [s for s in settings if s.contrasts["dsd"].high < 0]
    ahead = [s for s in settings if s.contrasts["dsd"].low > 0]
    few = sum(e in (1, 2) for e in best_e)
    dsd = f"beyond chance slower than the best fixed k in {len(behind)} of {len(settings)} settings, faster in "
    return [
        _most(settings, "over_baseline", "up to 5.25 % more throughput than the best baseline"),
        _most(settings, "over_fixed", "up to 9.27 % more throughput than fixed k; here the best k"),
        _most(settings, "over_same_k", "the same; here of the same k, the k that gains most"),
        _most(settings, "latency", "latency up to 9.32 % better than with fixed k; here 1 / mean latency"),
        _most(settings, "projected", "up to 12.04 % projected from TER; here of the same k, the k that gains most"),
        Finding(
            "e of 1 or 2 is best",
            f"best in {few} of {len(settings)} settings ({_counts(best_e)})",
            _verdict(few, len(settings)),
        ),
        Finding(
            "VSR keeps rising with e",
            f"at {sum(rises)} of {len(rises)} settings and k",
            _verdict(sum(rises), len(rises)),
        ),
        Finding("DSD does not always beat fixed k", f"{dsd}{len(ahead)}", "yes" if behind else "no"),
    ]


def _most(settings: Sequence[Setting], name: str, claim: str) -> Finding:
    contrasts = [(s, s.contrasts[name]) for s in settings]
    setting, most = max(contrasts, key=lambda pair: pair[1].percent)
    above = sum(contrast.low > 0 for _, contrast in contrasts)
    where = f"{setting.run}, {setting.system}, B={setting.batch_size}, {most.of.name} over {most.over.name}"
    here = (
        f"up to {most.percent:+.1f} % ({most.low:+.1f} to {most.high:+.1f}; {where}); "
        f"above 0 beyond chance in {above} of {len(settings)} settings"
    )
    return Finding(claim, here, _verdict(above, len(settings)))


def _rises(setting: Setting, k: int) -> bool:
    points = [setting.at(TETRIS, k, e) for e in EXTRA]
    rates = [point.metrics.success_rate or 0.0 for point in points if point]
    return all(later > earlier for earlier, later in pairwise(rates))


def _verdict(found: int, total: int) -> str:
    return "yes" if found == total else "in part" if found else "no"


def _counts(values: Sequence[int | None]) -> str:
    return ", ".join(f"e = {value}: {values.count(value)}" for value in sorted({v for v in values if v is not None}))

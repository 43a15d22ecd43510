"""Which draft tokens of a batch to verify: exact, on the device, without a host sync."""

from tetris_kernels.acceptance import accept
from tetris_kernels.budgeting import choose_budget
from tetris_kernels.calibration import Calibration, Uncalibrated
from tetris_kernels.compilation import warmup
from tetris_kernels.costs import CostTable
from tetris_kernels.expectation import expected_accepts
from tetris_kernels.mean_expectation import MeanExpectation
from tetris_kernels.packing import pack
from tetris_kernels.planning import Plan, plan_budget
from tetris_kernels.preferences import deadline_preferences, update_waited, waiting_weights
from tetris_kernels.readback import Readback
from tetris_kernels.scoring import score, select_from_logits
from tetris_kernels.selection import select
from tetris_kernels.types import Accepted, PackedBatch, Preferences, Selection

__all__ = [
    "Accepted",
    "Calibration",
    "CostTable",
    "MeanExpectation",
    "PackedBatch",
    "Plan",
    "Preferences",
    "Readback",
    "Selection",
    "Uncalibrated",
    "__version__",
    "accept",
    "choose_budget",
    "deadline_preferences",
    "expected_accepts",
    "pack",
    "plan_budget",
    "score",
    "select",
    "select_from_logits",
    "update_waited",
    "waiting_weights",
    "warmup",
]
__version__ = "0.1.0"

"""A model of what decoding costs on GPUs, where nothing was measured: the roofline of a data sheet.

A forward takes the longer of two times, and a constant:

    arithmetic: 2 * parameters * tokens            / (GPUs * peak * efficiency)
    memory:     (weights + caches of all requests) / (GPUs * bandwidth * efficiency)

Attention's own arithmetic, what GPUs say to each other, and everything between forwards are not in it, or are in the
constant. It is good for where verification stops being free, and for no time. Every number of it stands in the key of
the tables that it makes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from tetris_kernels import CostTable

LABEL = "a model, nothing measured"


@dataclass(frozen=True)
class Gpu:
    """Of a data sheet: dense tensor-core peaks in operations per second, memory in bytes per second.

    fp8 is None where there is no such unit.
    """

    name: str
    bf16: float
    fp8: float | None
    bandwidth: float


@dataclass(frozen=True)
class Model:
    """parameters: those that every token goes through. bytes_per_weight: 1 or 2. cache_bytes: of a request's token."""

    name: str
    parameters: float
    bytes_per_weight: int
    cache_bytes: int


@dataclass(frozen=True)
class Roofline:
    """A target and a drafter on GPUs.

    num_gpus:            of the target, which is split evenly; the drafter runs on one.
    context:             tokens of a request in the cache, on average.
    compute_efficiency, memory_efficiency: what part of the peaks is reached.
    target_overhead, draft_overhead: seconds of each forward besides.
    """

    gpu: Gpu
    target: Model
    drafter: Model
    num_gpus: int = 1
    context: int = 512
    compute_efficiency: float = 0.6
    memory_efficiency: float = 0.8
    target_overhead: float = 1e-3
    draft_overhead: float = 2e-4

    def __post_init__(self) -> None:
        for name in ("num_gpus", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}")
        for name in ("compute_efficiency", "memory_efficiency"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected more than 0, up to 1, got {getattr(self, name)}")
        for model in (self.target, self.drafter):
            if model.bytes_per_weight not in (1, 2) or (model.bytes_per_weight == 1 and self.gpu.fp8 is None):
                raise ValueError(f"{model.name}: expected 2 bytes per weight, or 1 on a GPU with FP8, got others")

    def ridge(self, batch_size: int) -> float:
        """Tokens of a verification at which its arithmetic takes as long as its memory."""
        return self._memory(self.target, self.num_gpus, batch_size) / self._arithmetic(self.target, self.num_gpus)

    def costs(self, batch_size: int, length: int) -> CostTable:
        """Of verifications of `batch_size` requests, and of up to `length` drafts for each."""
        memory, ridge = self._memory(self.target, self.num_gpus, batch_size), self.ridge(batch_size)
        draft = self.draft_overhead + max(
            self._memory(self.drafter, 1, batch_size), batch_size * self._arithmetic(self.drafter, 1)
        )
        below = max(int(ridge), 1)
        per_token = self._arithmetic(self.target, self.num_gpus)
        points = sorted({1, below, below + 1, 2 * below + 2})
        return CostTable(
            key=self.key(batch_size),
            tokens=tuple(points),
            seconds=tuple(self.target_overhead + max(memory, tokens * per_token) for tokens in points),
            draft_seconds=tuple(n * draft for n in range(length + 1)),
        )

    def key(self, batch_size: int) -> dict[str, str]:
        """All parameters, as text."""
        values = asdict(self) | {"batch_size": batch_size}
        flat = {name: value for name, value in values.items() if not isinstance(value, dict)}
        for group in ("gpu", "target", "drafter"):
            flat |= {f"{group} {name}": value for name, value in values[group].items()}
        return {"kind": LABEL} | {name: f"{v:g}" if isinstance(v, float) else str(v) for name, v in flat.items()}

    def describe(self) -> str:
        """In a few lines, for what is printed above results."""
        gpu, models = self.gpu, (self.target, self.drafter)
        sizes = ", ".join(
            f"{m.name} ({m.parameters / 1e9:.3g}e9 parameters of {m.bytes_per_weight} bytes, cache {m.cache_bytes:,} "
            "bytes a token)"
            for m in models
        )
        fp8 = f", {gpu.fp8 / 1e12:.0f}e12 in FP8" if gpu.fp8 else ""
        return (
            f"{LABEL}. {self.num_gpus} x {gpu.name} ({gpu.bf16 / 1e12:.0f}e12 operations/s in BF16{fp8}, "
            f"{gpu.bandwidth / 1e12:.2f}e12 bytes/s; the drafter on one), {sizes}; context {self.context} tokens; "
            f"efficiency {self.compute_efficiency:g} of arithmetic, {self.memory_efficiency:g} of memory; "
            f"{1e3 * self.target_overhead:g} ms besides for each verification, {1e3 * self.draft_overhead:g} for each "
            "draft."
        )

    def _arithmetic(self, model: Model, num_gpus: int) -> float:
        """Seconds per token."""
        peak = self.gpu.fp8 if model.bytes_per_weight == 1 and self.gpu.fp8 else self.gpu.bf16
        return 2 * model.parameters / (num_gpus * peak * self.compute_efficiency)

    def _memory(self, model: Model, num_gpus: int, batch_size: int) -> float:
        """Seconds of a forward."""
        read = model.parameters * model.bytes_per_weight + batch_size * self.context * model.cache_bytes
        return read / (num_gpus * self.gpu.bandwidth * self.memory_efficiency)


# NVIDIA's data sheets, dense.
H100 = Gpu("H100 SXM", 989e12, 1979e12, 3.35e12)
A100 = Gpu("A100 SXM 80 GB", 312e12, None, 2.039e12)
# Of the models' published configurations. Caches have 2 * layers * key heads * head size * 2 bytes a token.
LLAMA_70B = Model("Llama-3.1-70B", 70.6e9, 1, 2 * 80 * 8 * 128 * 2)
LLAMA_405B = Model("Llama-3.1-405B", 405.9e9, 1, 2 * 126 * 8 * 128 * 2)
LLAMA_1B = Model("Llama-3.2-1B", 1.24e9, 2, 2 * 16 * 8 * 64 * 2)
VICUNA_33B = Model("vicuna-33b", 32.5e9, 2, 2 * 60 * 52 * 128 * 2)
VICUNA_68M = Model("vicuna-68m", 68e6, 2, 2 * 2 * 12 * 64 * 2)

# The paper's pairs. The number of GPUs is chosen here: it holds the weights and the caches of 64 requests.
SYSTEMS = {
    "llama-70b": Roofline(H100, LLAMA_70B, LLAMA_1B, num_gpus=2),
    "llama-405b": Roofline(H100, LLAMA_405B, LLAMA_1B, num_gpus=8),
    "vicuna-33b": Roofline(H100, VICUNA_33B, VICUNA_68M, num_gpus=2),
}

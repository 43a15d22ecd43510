"""What the machine refuses to do."""

from __future__ import annotations


class Fault(Exception):
    """The PTX does something that is wrong, undefined, or unknown to the machine."""


class Unsupported(Fault):
    """An opcode, modifier, type, operand or directive that the machine does not know."""


class OutOfBounds(Fault):
    """An access outside of the arguments, or of the shared memory."""


class Misaligned(Fault):
    """An address that is not a multiple of the access's size."""


class Uninitialised(Fault):
    """A register or a byte of shared memory is read that nothing was written to."""


class Race(Fault):
    """Two threads, or programs, use the same bytes, one of them to write, and nothing orders them."""


class DivergentBarrier(Fault):
    """A barrier that not all threads of the program reach together."""


class InactiveLane(Fault):
    """A warp-wide instruction names a lane that does not take part."""


class Endless(Fault):
    """A program that does not come to an end."""

"""A small PTX machine: it executes the PTX of a launch on the CPU with numpy, and checks what no test can see.

`launch.execute` runs one launch; `driver.active` lets the real launchers run on it. For development and tests only:
nothing in the packages imports it.

Executed are all threads of a program in lock step: of those that wait, the ones at the lowest instruction go on, so
that threads which parted meet again. It raises a `Fault` for
- an access outside of the elements of the arguments, or of the shared memory; a misaligned one;
- reading a register or a byte of shared memory that nothing was written to (a register counts as written once any
  thread did; to join two halves, of which vectorised code may use one, they may be garbage);
- a race: two threads use the same bytes, one of them to write, without a barrier of the program between them; or two
  programs do, at any time. Threads of a warp are no exception: nothing orders their accesses but a barrier. (Threads
  that write the same value in the same instruction do not race, as in Triton's replicated layouts);
- a barrier, shuffle, vote or reduction that not all threads it names take part in;
- any opcode, modifier, type, operand or directive that is not in its tables. The tables hold whole spellings, so
  that nothing is left out silently; all instructions are looked up before the first one runs.

Its limits:
- Float arithmetic (add, sub, mul, fma, conversions) is IEEE and exact, fma included. ptxas may fuse a mul and an add
  that have no rounding modifier, so a GPU's last bit can differ. NaN has no defined payload here.
- Approximations (ex2, lg2, rcp, div.full) are computed in float64 and rounded once. A GPU's may be off by 2^-22, or
  by 2 ulp for div.full. So compare float results within bounds, and only integers exactly.
- Programs run one after another, from the first to the last, and the memory model is sequential: fences, cache
  policies and orderings of atomics have no effect, and an atomic does not order other accesses. Atomics of an
  instruction happen in an order drawn from `seed`.
- No tensor cores, asynchronous copies, clusters, local memory (so no spills), calls, float64 or 8-bit arithmetic.
- PTX is what runs. What ptxas makes of it (registers, unrolling, scheduling) does not show, in the counts neither.
- Counts are of a simple model: a shared access takes as many wavefronts as the busiest of its 32 banks has distinct
  words; a global one touches 32-byte sectors. There are no times.
"""

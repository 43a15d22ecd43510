"""Make data/traces.npz from a full recording: `python -m tetris_decode.extract RECORDING.npz OUT.npz`.

The full recording has one element per drafted token, 8 in a row for each request and step: `run`,
`request`, `step`, `draft_idx`, `q`, `accepted`, and the names `run_name`. See data/README.md for what is kept.
"""

from __future__ import annotations

import argparse

import numpy as np

from tetris_decode.traces import NUM_DRAFTS

COLUMNS = ("run", "request", "step", "draft_idx", "q", "accepted")


def extract(recording: str, out: str) -> None:
    """Write the columns that a replay needs, rows in the order (run, request, step)."""
    with np.load(recording, allow_pickle=False) as full:
        names = full["run_name"]
        rows = {name: full[name].reshape(-1, NUM_DRAFTS) for name in COLUMNS}
    if (rows["draft_idx"] != np.arange(NUM_DRAFTS)).any():
        raise ValueError(f"{recording}: expected drafts 0..{NUM_DRAFTS - 1} of each request and step side by side")

    run, request, step = (rows[name][:, 0].astype(np.int64) for name in ("run", "request", "step"))
    num_steps = np.zeros((len(names), request.max() + 1), dtype=np.uint16)
    np.add.at(num_steps, (run, request), 1)
    order = np.lexsort((step, request, run))
    if (step[order] != np.concatenate([np.arange(n) for n in num_steps.flat])).any():
        raise ValueError(f"{recording}: expected steps 0, 1, 2, ... of each request, without gaps")

    # Logarithms are taken once, here: `log` differs in the last bit between machines, the selection must not.
    log_q = np.log(rows["q"][order].astype(np.float64)).astype(np.float32)
    accepted = np.packbits(rows["accepted"][order], axis=1)
    np.savez_compressed(out, run_name=names, num_steps=num_steps, log_q=log_q, accepted=accepted)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Keep of a full recording what a replay needs.")
    parser.add_argument("recording", help="the full recording, .npz")
    parser.add_argument("out", help="the extract to write, .npz")
    arguments = parser.parse_args()
    extract(arguments.recording, arguments.out)

"""`tetris-decode plot`: a command for each picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from tetris_decode.commands import options, recorded
from tetris_decode.commands.console import check_out, errors_in_a_sentence, progress
from tetris_decode.commands.recorded import recorded_runs
from tetris_decode.traces import Run
from tetris_decode.wheels import NotInstalledError

Out: TypeAlias = Annotated[Path, typer.Option(metavar="FILE", help="Where the PNG goes.")]

plot = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Pictures of what was measured, as PNG.")


@plot.command()
def throughput(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="What `bench` wrote.")], out: Out
) -> None:
    """Throughput by policy and batch size."""
    with errors_in_a_sentence():
        check_out(out)
        from tetris_decode import plot_data, plots

        data = plot_data.read_bench(results)
        plots.save(lambda: plots.throughput(data), out)


@plot.command()
def budget(
    out: Out,
    trace: recorded.Trace = None,
    run: recorded.Names = None,
    batch_size: Annotated[int, typer.Option(metavar="B", min=1, help="Requests at a time.")] = 32,
) -> None:
    """Tokens per verification by drafts verified.

    A run is replayed under all fixed lengths, TETRIS and an oracle: some seconds for each.
    """
    with errors_in_a_sentence(), progress() as bar:
        check_out(out)
        from tetris_decode import plot_data, plots

        runs = recorded_runs(trace, run)
        per_run = [run.num_drafts + 2 * len(plot_data.budgets(run.num_drafts)) for run in runs]
        task = bar.add_task("replaying", total=sum(per_run))
        curves = [plot_data.budget_curves(run, batch_size, lambda: bar.advance(task)) for run in runs]
        plots.save(lambda: plots.budget(curves), out)


@plot.command()
def reliability(
    out: Out,
    trace: recorded.Trace = None,
    run: recorded.Names = None,
    calibrated: Annotated[
        bool, typer.Option("--calibrated", help="Of calibrated scores too, learned from other requests.")
    ] = False,
) -> None:
    """Observed survival of drafts by estimated one."""
    with errors_in_a_sentence():
        check_out(out)
        from tetris_decode import plot_data, plots
        from tetris_decode.calibrate import cross_fitted

        runs = recorded_runs(trace, run)
        data = [plot_data.reliability(run) for run in runs]
        after = [plot_data.reliability(run, cross_fitted(run, "logistic")) for run in runs] if calibrated else []
        plots.save(lambda: plots.reliability(data, after), out)


@plot.command()
def allocation(
    out: Out,
    trace: recorded.Trace = None,
    run: Annotated[str | None, typer.Option(metavar="NAME", help="A run in it. Default: the first.")] = None,
    requests: Annotated[int, typer.Option(metavar="N", min=1, help="How many requests.")] = 10,
    k: Annotated[int, typer.Option("-k", metavar="K", min=1, help="Drafts verified per request.")] = 2,
    extra: Annotated[int, typer.Option(metavar="E", min=0, help="Drafts beyond k that TETRIS chooses from.")] = 4,
    step: Annotated[
        int | None,
        typer.Option(metavar="T", min=1, help="Tokens that each has generated before. Default: a typical step."),
    ] = None,
    model: options.ModelDir = None,
) -> None:
    """One recorded step, draft by draft.

    Which drafts a fixed length and TETRIS verify, and which are accepted; by default in the step that is nearest to the
    mean one. Tokens are shown as text if --model names the
    model that was recorded, or if it was SmolLM2 and its wheel is installed.
    """
    with errors_in_a_sentence():
        check_out(out)
        from tetris_decode import plot_data, plots

        chosen = recorded_runs(trace, run and [run])[0]
        steps = plot_data.allocations(chosen, num_requests=requests, k=k, extra=extra)
        data = plot_data.typical(steps) if step is None else next((s for s in steps if s.step == step), None)
        if data is None:
            raise ValueError(f"step: expected one of {', '.join(str(s.step) for s in steps)}, got {step}")
        texts = _texts(chosen, data.ids.tolist(), model)
        plots.save(lambda: plots.allocation(data, plot_data.mean_accepted(steps), texts), out)


def _texts(run: Run, ids: list[list[int]], model: Path | None) -> list[list[str]] | None:
    """The token's texts, if there is a tokenizer to ask."""
    from tetris_decode import smollm2
    from tetris_decode.chat_model import load_tokenizer

    if model:
        tokenizer = load_tokenizer("model", model)
    elif run.about.get("model") == smollm2.NAME:
        try:
            tokenizer = smollm2.load_tokenizer()
        except NotInstalledError:
            return None
    else:
        return None
    return [[str(tokenizer.decode([token])) for token in row] for row in ids]

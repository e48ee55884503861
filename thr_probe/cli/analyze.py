"""`thr-probe analyze ...`: saved traces in; tables, figures and captions out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thr_probe.cli.analyzing import (
    GroupsOption,
    OutOption,
    RunArgument,
    RunsArgument,
    RunsOutOption,
    ScoreIdOption,
    SeedOption,
    VenueOption,
    analyze_and_print,
    analyze_app,
    default_folder,
    tell_files,
    warn_if_incomplete,
)
from thr_probe.cli.compare import texts_of
from thr_probe.cli.output import Format, FormatOption, print_rows
from thr_probe.cli.shell import command_line, quoted, stderr

if TYPE_CHECKING:
    from thr_probe.analysis.result import Analysis


@analyze_app.command("density")
def density_command(
    run: RunArgument,
    out: OutOption = None,
    style: Annotated[
        str, typer.Option("--style", help="paper (as Figure 2) or diagnostic (log counts).")
    ] = "paper",
    normalize: Annotated[
        str, typer.Option("--normalize", help="none, or tau: THR over its group's threshold.")
    ] = "none",
    bins: Annotated[int, typer.Option("--bins", help="Bins of the diagnostic style.")] = 80,
    groups: GroupsOption = "mixed",
    score_id: ScoreIdOption = None,
    seed: SeedOption = 0,
    venue: VenueOption = "neurips",
    format: FormatOption = Format.HUMAN,
) -> None:
    """How THR is distributed: density, sign, dominant share, concentration (Figure 2)."""
    options = {"style": style, "normalize": normalize, "bins": bins, "groups": groups}
    analyze_and_print("density", run, out, format, venue, score_id=score_id, seed=seed, **options)


@analyze_app.command("overlap")
def overlap_command(
    run: RunArgument,
    out: OutOption = None,
    groups: GroupsOption = "mixed",
    score_id: ScoreIdOption = None,
    seed: SeedOption = 0,
    venue: VenueOption = "neurips",
    format: FormatOption = Format.HUMAN,
) -> None:
    """Dominant tokens against the same number of highest-entropy tokens (Figure 3)."""
    analyze_and_print(
        "overlap", run, out, format, venue, score_id=score_id, seed=seed, groups=groups
    )


@analyze_app.command("wordcloud")
def wordcloud_command(
    run: RunArgument,
    out: OutOption = None,
    top: Annotated[int, typer.Option("--top", help="Tokens in each cloud.")] = 50,
    min_count: Annotated[
        int, typer.Option("--min-count", help="Least occurrences of a token; 5 is less noisy.")
    ] = 1,
    merge_case: Annotated[
        bool, typer.Option("--merge-case", help="Count Wait and wait as one token.")
    ] = False,
    groups: GroupsOption = "mixed",
    score_id: ScoreIdOption = None,
    seed: SeedOption = 0,
    venue: VenueOption = "neurips",
    format: FormatOption = Format.HUMAN,
) -> None:
    """Token types by mean THR, positive and negative apart, with the ranked table (Figure 7)."""
    options = {"top": top, "min_count": min_count, "merge_case": merge_case, "groups": groups}
    analyze_and_print("wordcloud", run, out, format, venue, score_id=score_id, seed=seed, **options)


@analyze_app.command("reflection")
def reflection_command(
    run: RunArgument,
    out: OutOption = None,
    words: Annotated[
        Path | None,
        typer.Option("--words", help="File of words, one a line.", show_default="the paper's 29"),
    ] = None,
    unit: Annotated[
        str, typer.Option("--unit", help="match: whole words of the text; token: single tokens.")
    ] = "match",
    seed: SeedOption = 0,
    venue: VenueOption = "neurips",
    format: FormatOption = Format.HUMAN,
) -> None:
    """Reflection words per generated token, by word and by outcome (Tables 14 and 15)."""
    analyze_and_print("reflection", run, out, format, venue, seed=seed, words=words, unit=unit)


@analyze_app.command("retention")
def retention_command(
    run: RunArgument,
    out: OutOption = None,
    groups: GroupsOption = "mixed",
    score_id: ScoreIdOption = None,
    seed: SeedOption = 0,
    venue: VenueOption = "neurips",
    format: FormatOption = Format.HUMAN,
) -> None:
    """Share of tokens with |THR| > tau and its distribution over questions (Table 16)."""
    analyze_and_print(
        "retention", run, out, format, venue, score_id=score_id, seed=seed, groups=groups
    )


@analyze_app.command("passk")
def passk_command(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Run directories or folders of thr-probe eval; of several the first is subtracted "
            "from the others.",
            metavar="RUN...",
            show_default=False,
        ),
    ],
    out: RunsOutOption = None,
    k: Annotated[
        list[int] | None,
        typer.Option("--k", help="A value of K; may be repeated.", show_default="1, 2, 4 ... n"),
    ] = None,
    by: Annotated[
        str, typer.Option("--by", help="Curves apart by dataset, level or none; auto: by dataset.")
    ] = "auto",
    seed: SeedOption = 0,
    venue: VenueOption = "neurips",
    format: FormatOption = Format.HUMAN,
) -> None:
    """Unbiased Pass@K for K = 1, 2, 4 ... n; several runs overlaid, with paired differences."""
    from thr_probe.analysis.sources import EVAL_NAME, read_sources

    options: dict[str, Any] = {"ks": k or None, "by": by, "seed": seed}
    sources = read_sources(runs) if len(runs) > 1 or not _is_run(runs[0], EVAL_NAME) else []
    if not sources:
        analyze_and_print("passk", Path(runs[0]), out, format, venue, **options)
        return
    from thr_probe.analysis.passk_runs import pass_at_k_runs
    from thr_probe.figures.passk_runs import plot_pass_at_k_runs
    from thr_probe.figures.save import save_analysis

    analysis = pass_at_k_runs(sources, **options)
    for warning in texts_of(analysis, "warnings"):
        stderr().print(f"warning: {warning}", markup=False)
    figure = plot_pass_at_k_runs(analysis, venue=venue)
    folder = out or (default_folder(sources[0].path, None) if len(runs) == 1 else Path("analysis"))
    paths = save_analysis(analysis, figure, folder, command=quoted(command_line()))
    rows = analysis.summary.to_dict("records")
    print_rows([{str(key): value for key, value in row.items()} for row in rows], format)
    tell_files(analysis, paths)


def _is_run(text: str, eval_name: str) -> bool:
    """Whether a path is (or should have been) a run directory, not an evaluation."""
    return not any((Path(path) / eval_name).is_file() for path in (text, text.rpartition(":")[0]))


@analyze_app.command("curves")
def curves_command(
    runs: RunsArgument,
    out: RunsOutOption = None,
    smooth: Annotated[
        int | None,
        typer.Option(
            "--smooth", help="Also the running mean over so many steps.", show_default="none"
        ),
    ] = None,
    venue: VenueOption = "neurips",
    format: FormatOption = Format.HUMAN,
) -> None:
    """Reward, validation, length, entropy, retention along training (Figures 6, 11 and 12)."""
    from thr_probe.analysis.curves import run_rows

    analysis = _analyze_training("curves", runs, out, venue, smooth=smooth)
    print_rows(run_rows(analysis), format)


@analyze_app.command("timing")
def timing_command(
    runs: RunsArgument,
    out: RunsOutOption = None,
    skip_steps: Annotated[
        int, typer.Option("--skip-steps", help="Leave out that many first steps.")
    ] = 0,
    unit: Annotated[
        str, typer.Option("--unit", help="Of the printed table: seconds, or percent of the total.")
    ] = "seconds",
    venue: VenueOption = "neurips",
    format: FormatOption = Format.HUMAN,
) -> None:
    """Mean seconds per training step of every module (Table 10)."""
    from thr_probe.analysis.timing import check_unit, timing_rows

    check_unit(unit)
    analysis = _analyze_training("timing", runs, out, venue, skip_steps=skip_steps)
    print_rows(timing_rows(analysis, unit=unit), format)


@analyze_app.command("all")
def all_command(
    run: RunArgument,
    out: OutOption = None,
    groups: GroupsOption = "mixed",
    score_id: ScoreIdOption = None,
    seed: SeedOption = 0,
    venue: VenueOption = "neurips",
    format: FormatOption = Format.HUMAN,
) -> None:
    """Every analysis; those that the run has no columns for are named and left out."""
    from thr_probe.errors import IncompleteError
    from thr_probe.gallery import analyze_all
    from thr_probe.traces import read_run

    opened = read_run(run)
    folder = out or default_folder(run, score_id)
    warn_if_incomplete(run, complete=opened.is_complete)
    outcomes = analyze_all(
        opened,
        folder,
        score_id=score_id,
        groups=groups,
        seed=seed,
        venue=venue,
        command=quoted(command_line()),
    )
    print_rows(
        [
            {
                "analysis": outcome.name,
                "figure": str(outcome.figure) if outcome.figure else None,
                "note": outcome.note,
            }
            for outcome in outcomes
        ],
        format,
    )
    stderr().print(f"tables, figures and captions are in {folder}")
    failed = [outcome.name for outcome in outcomes if outcome.failed]
    if failed:
        raise IncompleteError(f"not computed: {', '.join(failed)}", "the notes above say why")


def _analyze_training(
    name: str, runs: list[Path], out: Path | None, venue: str, **options: Any
) -> Analysis:
    """Compute and save; tells on stderr where the files are, and leaves the result to print."""
    from thr_probe.gallery import analyze_training

    folder = out or (default_folder(runs[0], None) if len(runs) == 1 else Path("analysis"))
    analysis, paths = analyze_training(
        name, runs, folder, venue=venue, command=quoted(command_line()), **options
    )
    tell_files(analysis, paths)
    return analysis

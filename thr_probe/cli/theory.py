"""`thr-probe theory`: the paper's appendix D.2 simulated, without a run or a policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thr_probe.cli.analyzing import VenueOption
from thr_probe.cli.output import Format, FormatOption, print_rows
from thr_probe.cli.shell import command_line, quoted, stderr


def theory_command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the files.")] = Path("theory"),
    vocab_size: Annotated[
        list[int] | None,
        typer.Option(
            "--vocab-size",
            "-V",
            help="Vocabulary size; may be repeated.",
            show_default="10, 100, 1000, 10000, 151936",
        ),
    ] = None,
    top: Annotated[
        list[float] | None,
        typer.Option(
            "--top",
            help="Probability pi* of one token; may be repeated.",
            show_default="0.1, 0.5, 0.9, 0.99",
        ),
    ] = None,
    spread: Annotated[
        str, typer.Option("--spread", help="The rest over the other tokens: uniform or dirichlet.")
    ] = "uniform",
    alpha: Annotated[float, typer.Option("--alpha", help="Of --spread dirichlet.")] = 1.0,
    label: Annotated[
        str,
        typer.Option("--label", help="Token o: argmax, or sampled from the distribution."),
    ] = "argmax",
    draws: Annotated[int, typer.Option("--draws", help="Distributions of each V and pi*.")] = 20,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the distributions.")] = 0,
    venue: VenueOption = "neurips",
    format: FormatOption = Format.HUMAN,
) -> None:
    """Entropy and THR in a simulation: -x log x, cosines, Lemma 1, labels (App. D.2, Figs. 8-10).

    Prints the cosines by vocabulary size and pi*: cos(-Q, e_o), cos(Q + pi, e_o - pi) and minus the
    latter, which is how the entropy moves where signed THR rises.
    """
    from thr_probe.analysis.theory import TOP_PROBABILITIES, VOCAB_SIZES, Simulation
    from thr_probe.gallery import simulate

    simulation = Simulation(
        vocab_sizes=sorted(set(vocab_size or VOCAB_SIZES)),
        tops=sorted(set(top or TOP_PROBABILITIES)),
        spread=spread,
        alpha=alpha,
        label=label,
        draws=draws,
        seed=seed,
    )
    analyses, paths = simulate(simulation, out, venue=venue, command=quoted(command_line()))
    cosines = analyses["theory-cosines"].curves["cosines"]
    print_rows([{str(k): v for k, v in row.items()} for row in cosines.to_dict("records")], format)
    for path in paths:
        stderr().print(str(path))

"""The analyses as Polars queries over the same Parquet parts: lazy, streaming engine, one thread.

Of several ways of writing each the fastest that was found is here.
"""

from __future__ import annotations

import analyze_numbers as numbers
import polars as pl

_THR, _TAU = pl.col("thr"), pl.col("tau")


def density(path: str, axes: numbers.Axes) -> numbers.Numbers:
    """Survey of the scales, then sums and histograms of the same lazy frame."""
    groups = _kept(path).group_by("prompt_id").agg(_TAU.first()).filter(_TAU > 0)
    # the ends of the axes are looked for, as thr_probe does; the bins lie on its own
    survey = _kept(path, "thr").select("thr").explode("thr")
    survey.select(_THR.abs().max(), low=_THR.quantile(0.005), high=_THR.quantile(0.995)).collect(
        engine="streaming"
    )
    tokens = (
        _kept(path, "thr")
        .select("correct", "positive_tau", "tau", "thr")
        .explode("thr")
        .with_columns(dominant=_THR.abs() > _TAU, thr=_THR.cast(pl.Float64))
        .with_columns(a=_THR.abs())
    )
    asinh = (_THR / axes.scale).arcsinh() / axes.reach * 40 + 40
    octaves = (pl.max_horizontal("a", pl.lit(axes.floor)) / axes.floor).log(2)
    queries = {
        "sums": tokens.group_by("correct", "positive_tau").agg(*_density_sums()),
        "magnitude": tokens.with_columns(
            bin=(octaves * 16).floor().cast(pl.Int32).clip(upper_bound=639)
        )
        .group_by("correct", "positive_tau", "bin")
        .agg(tokens=pl.len(), mass=pl.col("a").sum()),
        "linear": tokens.with_columns(bin=((_THR - axes.left) / axes.step).floor())
        .filter(pl.col("bin").is_between(0, axes.linear_bins - 1))
        .group_by("correct", pl.col("bin").cast(pl.Int32))
        .agg(tokens=pl.len()),
        "asinh": tokens.filter(_THR != 0)
        .with_columns(bin=asinh.floor().clip(0, 79).cast(pl.Int32))
        .group_by("correct", "bin")
        .agg(tokens=pl.len()),
    }
    tables = {name: _columns(query.collect(engine="streaming")) for name, query in queries.items()}
    median_tau = groups.select(_TAU.median()).collect(engine="streaming").item()
    return numbers.density_numbers(tables, axes=axes, median_tau=median_tau)


def _density_sums() -> list[pl.Expr]:
    dominant, a = pl.col("dominant"), pl.col("a")
    return [
        pl.len().alias("tokens"),
        dominant.sum(),
        (_THR > 0).sum().alias("positive"),
        (_THR == 0).sum().alias("zero"),
        (dominant & (_THR > 0)).sum().alias("positive_dominant"),
        a.sum().alias("mass"),
        (a * dominant).sum().alias("dominant_mass"),
        (a * (_THR > 0)).sum().alias("positive_mass"),
    ]


def overlap(path: str) -> numbers.Numbers:
    """Within each completion, dominance sorted by falling entropy, the first n of it."""
    dominant = pl.col("dominant")
    first = dominant.sort_by("entropy", descending=True, maintain_order=True)
    rows = (
        _tokens(path, "thr", "entropy")
        .group_by("row", "correct", "positive_tau")
        .agg(n=dominant.sum(), length=pl.len(), both=first.head(dominant.sum()).sum())
        .filter(pl.col("n") > 0)
        .with_columns(chance=pl.col("n") / pl.col("length"), overlap=pl.col("both") / pl.col("n"))
    )
    return numbers.overlap_numbers(_columns(rows.collect(engine="streaming")))


def retention(path: str) -> numbers.Numbers:
    """Dominant tokens of each completion, added up by question and label."""
    n, d = pl.col("n"), pl.col("d")
    rows = (
        _tokens(path, "thr")
        .group_by("row", "prompt_id", "correct", "positive_tau")
        .agg(n=pl.len(), d=pl.col("dominant").sum())
        .group_by("prompt_id", "correct", "positive_tau")
        .agg(tokens=n.sum(), dominant=d.sum(), completions=pl.len(), share=(d / n).sum())
    )
    return numbers.retention_numbers(_columns(rows.collect(engine="streaming")))


def reflection(path: str) -> numbers.Numbers:
    """All matches of one pattern, then counted by word."""
    words = pl.col("text").str.to_lowercase().str.extract_all(numbers.PATTERN)
    matched = (
        _rollouts(path)
        .select("correct", tokens=pl.col("token_ids").list.len(), words=words)
        .with_columns(n=pl.col("words").list.len())
        .collect(engine="streaming")
    )
    rows = matched.group_by("correct").agg(
        completions=pl.len(),
        reflecting=(pl.col("n") > 0).sum(),
        matches=pl.col("n").sum(),
        tokens=pl.col("tokens").sum(),
    )
    counted = (
        matched.select("correct", word="words")
        .explode("word")
        .drop_nulls()
        .group_by("correct", "word")
        .agg(count=pl.len())
    )
    return numbers.reflection_numbers(_columns(rows), _columns(counted))


def wordcloud(path: str) -> numbers.Numbers:
    """Sums by token id, then by the word it stands for."""
    word = pl.col("text").str.strip_chars().str.strip_chars_start("Ġ▁").str.strip_chars()
    words = pl.scan_parquet(f"{path}/tokens.parquet").select(
        token_ids="token_id", word=pl.when(word.str.contains(r"\p{L}")).then(word)
    )
    types = (
        _kept(path, "thr", of_rollouts=("token_ids",))
        .select("token_ids", "thr")
        .explode("token_ids", "thr")
        .group_by("token_ids")
        .agg(
            tokens=pl.len(),
            mass=_THR.abs().cast(pl.Float64).sum(),
            thr=_THR.cast(pl.Float64).sum(),
        )
        .join(words, on="token_ids")
        .group_by("word")
        .agg(pl.col("tokens", "thr", "mass").sum())
    )
    return numbers.wordcloud_numbers(_columns(types.collect(engine="streaming")))


def _rollouts(path: str) -> pl.LazyFrame:
    return pl.scan_parquet(f"{path}/rollouts/*.parquet")


def _kept(path: str, *lists: str, of_rollouts: tuple[str, ...] = ("correct",)) -> pl.LazyFrame:
    """Completions of groups with right and wrong ones, beside what is needed of the rollouts."""
    keys = ("prompt_id", "rollout_id")
    return (
        pl.scan_parquet(f"{path}/scores/default/*.parquet")
        .filter(_THR.is_not_null() & (pl.col("q") < 1))
        .select(*keys, "tau", *lists, positive_tau=_TAU > 0)
        .join(_rollouts(path).select(*keys, *of_rollouts), on=keys)
    )


def _tokens(path: str, *lists: str) -> pl.LazyFrame:
    """A row per token, `row` telling the completions apart."""
    return (
        _kept(path, *lists)
        .with_row_index("row")
        .select("row", "prompt_id", "correct", "positive_tau", "tau", *lists)
        .explode(*lists)
        .with_columns(dominant=_THR.abs() > _TAU)
    )


def _columns(frame: pl.DataFrame) -> numbers.Columns:
    return {name: frame[name].to_numpy() for name in frame.columns}

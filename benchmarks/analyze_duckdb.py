"""The analyses as DuckDB queries over the same Parquet parts: one connection, one thread.

Of several ways of writing each the fastest that was found is here. Lambdas over
the lists beat UNNEST where the result is one number per completion, UNNEST beats them where it is
a histogram.
"""

from __future__ import annotations

import analyze_numbers as numbers
import duckdb
import numpy as np


def density(path: str, axes: numbers.Axes) -> numbers.Numbers:
    """Survey of the scales, then one pass with all histograms."""
    database = _connect()
    kept = _kept(path, "thr")
    # the ends of the axes are looked for, as thr_probe does; the bins lie on its own
    survey = (
        f"SELECT max(abs(x)), approx_quantile(x, [0.005, 0.995]) FROM ({kept}), UNNEST(thr) t(x)"
    )
    database.execute(survey).fetchall()
    median_tau = database.execute(
        f"SELECT median(tau) FROM (SELECT any_value(tau) AS tau FROM ({kept}) GROUP BY prompt_id) "
        "WHERE tau > 0"
    ).fetchone()[0]
    rows = database.execute(
        f"""
        WITH tokens AS (SELECT correct, positive_tau, tau, UNNEST(thr)::DOUBLE AS x FROM ({kept})),
        binned AS (SELECT correct, positive_tau, x, abs(x) AS a, abs(x) > tau AS dominant,
            CASE WHEN x >= $left AND x < $left + $step * {axes.linear_bins}
                 THEN floor((x - $left) / $step)::INT END AS linear,
            CASE WHEN x <> 0 THEN
                 least(greatest(floor(asinh(x / $scale) / $reach * 40 + 40), 0), 79)::INT
                 END AS asinh,
            least(floor(log2(greatest(abs(x), $floor) / $floor) * 16), 639)::INT AS magnitude
            FROM tokens)
        SELECT grouping(linear, asinh, magnitude) AS kind, correct, positive_tau,
            coalesce(linear, asinh, magnitude, -1) AS bin, count(*) AS tokens, sum(a) AS mass,
            count(*) FILTER (dominant) AS dominant, count(*) FILTER (x > 0) AS positive,
            count(*) FILTER (x = 0) AS zero,
            count(*) FILTER (dominant AND x > 0) AS positive_dominant,
            sum(a) FILTER (dominant) AS dominant_mass, sum(a) FILTER (x > 0) AS positive_mass
        FROM binned GROUP BY GROUPING SETS ((correct, positive_tau), (correct, linear),
            (correct, asinh), (correct, positive_tau, magnitude))
        """,
        {
            "left": axes.left,
            "step": axes.step,
            "scale": axes.scale,
            "reach": axes.reach,
            "floor": axes.floor,
        },
    ).fetchnumpy()
    plain = {name: np.asarray(column) for name, column in rows.items()}
    # one bit for each of linear, asinh, magnitude: set where the row is not grouped by it
    kinds = {"sums": 0b111, "magnitude": 0b110, "linear": 0b011, "asinh": 0b101}
    tables = {name: _of_kind(plain, kind) for name, kind in kinds.items()}
    return numbers.density_numbers(tables, axes=axes, median_tau=median_tau)


def overlap(path: str) -> numbers.Numbers:
    """The n-th largest entropy of each completion as a cut, n its dominant tokens."""
    rows = _connect().execute(
        f"""
        WITH counted AS (SELECT correct, positive_tau, thr, entropy, tau,
            len(list_filter(thr, lambda x: abs(x) > tau)) AS n
            FROM ({_kept(path, "thr", "entropy")})),
        cut AS (SELECT *, list_sort(entropy, 'DESC')[n] AS cut FROM counted WHERE n > 0)
        SELECT correct, positive_tau, n / len(thr) AS chance,
            len(list_filter(entropy, lambda e, i: e >= cut AND abs(thr[i]) > tau)) / n AS overlap
        FROM cut
        """
    )
    return numbers.overlap_numbers(rows.fetchnumpy())


def retention(path: str) -> numbers.Numbers:
    """Dominant tokens of each completion, added up by question and label."""
    rows = _connect().execute(
        f"""
        WITH counted AS (SELECT prompt_id, correct, positive_tau, len(thr) AS n,
            len(list_filter(thr, lambda x: abs(x) > tau)) AS d FROM ({_kept(path, "thr")}))
        SELECT prompt_id, correct, positive_tau, sum(n)::BIGINT AS tokens,
            sum(d)::BIGINT AS dominant, count(*) AS completions, sum(d / n) AS share
        FROM counted GROUP BY ALL
        """
    )
    return numbers.retention_numbers(rows.fetchnumpy())


def reflection(path: str) -> numbers.Numbers:
    """All matches of one pattern, then counted by word."""
    database = _connect()
    database.execute(
        f"""
        CREATE TEMP TABLE matched AS SELECT correct, len(token_ids) AS tokens,
            regexp_extract_all(lower(text), '{numbers.PATTERN}') AS words FROM {_rollouts(path)}
        """
    )
    rows = database.execute(
        "SELECT correct, count(*) AS completions, count(*) FILTER (len(words) > 0) AS reflecting, "
        "sum(len(words))::BIGINT AS matches, sum(tokens)::BIGINT AS tokens FROM matched GROUP BY 1"
    ).fetchnumpy()
    words = database.execute(
        "SELECT correct, word, count(*) AS count FROM "
        "(SELECT correct, UNNEST(words) AS word FROM matched) GROUP BY ALL"
    ).fetchnumpy()
    return numbers.reflection_numbers(rows, words)


def wordcloud(path: str) -> numbers.Numbers:
    """Sums by token id, then by the word it stands for."""
    rows = (
        _connect()
        .execute(
            f"""
        WITH tokens AS (SELECT UNNEST(token_ids) AS token_id, UNNEST(thr) AS x
            FROM ({_kept(path, "thr", of_rollouts="token_ids")})),
        by_id AS (SELECT token_id, count(*) AS n, sum(x::DOUBLE) AS s, sum(abs(x)::DOUBLE) AS m
            FROM tokens GROUP BY token_id),
        words AS (SELECT token_id, trim(ltrim(trim(text, ' \n\t\r'), 'Ġ▁'), ' \n\t\r') AS word
            FROM read_parquet('{path}/tokens.parquet'))
        SELECT CASE WHEN regexp_matches(word, '\\p{{L}}') THEN word END AS word,
            sum(n)::BIGINT AS tokens, sum(s) AS thr, sum(m) AS mass
        FROM by_id JOIN words USING (token_id) GROUP BY 1
        """
        )
        .fetchall()
    )
    word, tokens, thr, mass = zip(*rows, strict=True)
    return numbers.wordcloud_numbers(
        {
            "word": np.array(word, dtype=object),
            "tokens": np.array(tokens),
            "thr": np.array(thr),
            "mass": np.array(mass),
        }
    )


def _connect() -> duckdb.DuckDBPyConnection:
    database = duckdb.connect()
    database.execute("SET threads = 1")
    database.execute("SET preserve_insertion_order = false")
    return database


def _rollouts(path: str) -> str:
    return f"read_parquet('{path}/rollouts/*.parquet')"


def _kept(path: str, *lists: str, of_rollouts: str = "correct") -> str:
    """Completions of groups with right and wrong ones, beside what is needed of the rollouts."""
    columns = ", ".join(lists)
    also = "" if of_rollouts == "correct" else f", {of_rollouts}"
    return (
        f"SELECT prompt_id, correct, tau, tau > 0 AS positive_tau, {columns}{also} "
        f"FROM read_parquet('{path}/scores/default/*.parquet') "
        f"JOIN (SELECT prompt_id, rollout_id, correct{also} FROM {_rollouts(path)}) "
        "USING (prompt_id, rollout_id) WHERE thr IS NOT NULL AND q < 1"
    )


def _of_kind(rows: numbers.Columns, kind: int) -> numbers.Columns:
    chosen = (rows["kind"] == kind) & ((rows["bin"] >= 0) | (kind == 0b111))
    return {name: column[chosen] for name, column in rows.items()}

"""`tokens.parquet` of a run: what each token id that occurs in its completions stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from thr_probe.traces.lists import list_values
from thr_probe.traces.reader import read_run
from thr_probe.traces.writer import write_tokens


def write_occurring_tokens(
    run_path: Path, token_rows: Callable[[Sequence[int]], Iterable[tuple[int, bytes, str]]]
) -> None:
    """Write the table of the ids that the completions hold.

    Args:
        run_path: a run with all its parts.
        token_rows: (token_id, bytes, text) of ids, as a policy and its tokenizer give them.
    """
    ids: set[int] = set()
    for table in read_run(run_path).iter_completions(["token_ids"]):
        values, _ = list_values(table["token_ids"])
        ids.update(values.tolist())
    write_tokens(
        run_path,
        [
            {"token_id": token_id, "bytes": data, "text": text}
            for token_id, data, text in token_rows(sorted(ids))
        ],
    )

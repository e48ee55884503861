"""Completions of another program, made by hand, and an import of them without a format."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thr_probe.errors import DataError
from thr_probe.importing import ImportReport, ImportSettings, import_rollouts
from thr_probe.importing.formats import Source
from thr_probe.traces import read_run
from thr_probe.traces.importers.foreign import ForeignCompletion, Importer, Refused


def foreign(group: str, **values: Any) -> ForeignCompletion:
    """A completion of a group; what is not given is plain."""
    defaults: dict[str, Any] = {
        "where": f"rows, {group}",
        "text": f"it is \\boxed{{{group}}}",
        "prompt_text": f"say {group}",
        "answer": group,
        "correct": True,
    }
    return ForeignCompletion(group=group, **(defaults | values))


def importer_of(rows: Iterable[ForeignCompletion | Refused]) -> Importer:
    """A format whose files hold these rows."""
    kept = list(rows)

    def read(files: Sequence[Path], options: object) -> Iterator[ForeignCompletion | Refused]:
        return iter(kept)

    return Importer(name="fake", meaning="rows of a test", find=lambda path: [path], read=read)


def source_of(folder: Path, rows: Iterable[ForeignCompletion | Refused]) -> Source:
    """A file in a folder that stands for these rows, with a content of its own."""
    kept = list(rows)
    path = folder / "rows.fake"
    path.write_text(hashlib.sha256(repr(kept).encode("utf-8", "replace")).hexdigest())
    return Source(importer=importer_of(kept), files=(path,))


def imported(
    folder: Path, rows: Iterable[ForeignCompletion | Refused], **options: Any
) -> ImportReport:
    """Import these rows into folder/run; options are those of the settings and of the import."""
    names = ("words", "resume", "overwrite", "dry_run", "monitor")
    given = {name: options.pop(name) for name in names if name in options}
    report = import_rollouts(
        source_of(folder, rows), folder / "run", ImportSettings(**options), **given
    )
    assert report is not None
    return report


@dataclass(frozen=True, kw_only=True)
class Letters:
    """A tokenizer of single characters, ids as in ASCII; 0 ends, 1 begins, 2 means nothing."""

    name: str = "letters"
    digest: str = "digest of letters"
    size: int = 128
    eos_id: int = 0
    special_ids: frozenset[int] = frozenset({0, 1, 2})
    has_template: bool = False

    def encode_prompt(self, text: str) -> list[int]:
        """A beginning, then the characters."""
        return [1, *map(ord, text)]

    def chat_prompt(self, messages: Sequence[Mapping[str, str]]) -> str | None:
        """[role] text, then where the policy begins, if it has a template; it knows no tools."""
        if not self.has_template:
            return None
        if any(message["role"] == "tool" for message in messages):
            raise DataError("no tools")
        said = "".join(f"[{message['role']}] {message['content']}" for message in messages)
        return f"<x>{said}[policy]"

    def encode_completions(self, texts: Sequence[str]) -> list[list[int]]:
        """The characters; the end where it is spelled."""
        return [[*map(ord, text.replace("</s>", "\0").replace("<x>", "\2"))] for text in texts]

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """The characters."""
        special = {0: "</s>", 1: "<s>", 2: "<x>"}
        return "".join(
            ("" if skip_special_tokens else special[each]) if each in special else chr(each)
            for each in ids
        )

    def token_rows(self, ids: Iterable[int]) -> list[tuple[int, bytes, str]]:
        """Each character."""
        return [(each, chr(each).encode(), chr(each)) for each in ids]


def rows_of(run_path: Path) -> list[dict[str, Any]]:
    """All rollouts of a run, in order, with every column that it has."""
    run = read_run(run_path)
    columns = sorted(run.rollout_parts[0].columns)
    return [row for table in run.iter_completions(columns) for row in table.to_pylist()]


def groups_of(run_path: Path) -> dict[tuple[int | None, str], list[str]]:
    """The texts of each group, by step and prompt text, in the order of the rollouts."""
    problems = read_run(run_path).problems().set_index("prompt_id")["prompt_text"]
    groups: dict[tuple[int | None, str], list[str]] = {}
    for row in rows_of(run_path):
        groups.setdefault((row["step"], problems[row["prompt_id"]]), []).append(row["text"])
    return groups

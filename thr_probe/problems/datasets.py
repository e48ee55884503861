"""Problem sets: benchmark files, one's own tables, verl Parquet, the hub, the lab -> Problem."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from thr_probe.errors import DataError, UsageError
from thr_probe.lab import lab_problems
from thr_probe.problems.extract import gold_text
from thr_probe.problems.problem import Problem, ProblemSet, problems_digest, prompt_id
from thr_probe.problems.rows import Draft, found, text_value
from thr_probe.problems.tables import RowTable, read_table
from thr_probe.problems.templates import check_template, render_prompt
from thr_probe.problems.verl import is_verl, verl_drafts

QUESTION_COLUMNS = ("question", "problem", "query", "input", "prompt")
ANSWER_COLUMNS = (
    "answer",
    "final_answer",
    "gold",
    "gold_answer",
    "expected_answer",
    "ground_truth",
    "target",
    "solution",
)
ALT_COLUMN = "answer_alt"


def load_problems(  # noqa: PLR0913  the whole of what a source may need, each with a default
    source: str,
    *,
    template: str | None = None,
    question_column: str | None = None,
    answer_column: str | None = None,
    max_prompts: int | None = None,
    tokenizer: Any = None,
    default_template: str = "qwen-boxed",
) -> ProblemSet:
    """The problems of a source, each with the prompt the policy will be given.

    Args:
        source: "lab" or "lab:train|validation|test"; a .parquet, .jsonl or .csv path; a verl-format
            Parquet path; or a hub id `org/name[/config][:split]`.
        template: a name of `TEMPLATES`; by default "lab" for the lab, the file's own prompts for
            verl, else `default_template`.
        question_column: where the question stands; found by its name when None.
        answer_column: where the gold stands; found by its name when None.
        max_prompts: keep only the first so many, in the order of the source.
        tokenizer: the policy's, for the template "chat".
        default_template: what sources without prompts of their own are put in, if not told.

    Returns:
        The set, with counts of rows left out for an empty gold or a repeated prompt.
    """
    if max_prompts is not None and max_prompts < 1:
        raise UsageError(f"max_prompts must be at least 1, got {max_prompts}")
    if template is not None:
        check_template(template)
    is_lab = source == "lab" or source.startswith("lab:")
    if is_lab:
        name, drafts = source, _lab_drafts(source, max_prompts)
    else:
        table = read_table(source)
        name = table.name
        drafts = _table_drafts(table, question_column, answer_column, template, tokenizer)
    render = _renderer(template or ("lab" if is_lab else default_template), tokenizer)
    return _problem_set(source, name, drafts, render, max_prompts)


def _problem_set(
    source: str,
    name: str,
    drafts: list[Draft],
    render: Callable[[str], str],
    max_prompts: int | None,
) -> ProblemSet:
    graded = [draft for draft in drafts if gold_text(draft.answer)]
    problems = _distinct(_problem(draft, render) for draft in graded)
    if not problems:
        raise DataError(
            f"{source}: none of the {len(drafts)} rows has a gold answer",
            hint="check the answer column; completions are compared with it",
        )
    kept = problems[:max_prompts]
    return ProblemSet(
        name=name,
        problems=kept,
        digest=problems_digest(kept),
        num_empty_gold=len(drafts) - len(graded),
        num_duplicates=len(graded) - len(problems),
    )


def _renderer(template: str, tokenizer: Any) -> Callable[[str], str]:
    return lambda question: render_prompt(question, template, tokenizer)


def _problem(draft: Draft, render: Callable[[str], str]) -> Problem:
    text = render(draft.question) if draft.prompt_text is None else draft.prompt_text
    return Problem(
        prompt_id=prompt_id(draft.question, text),
        dataset=draft.dataset,
        level=draft.level,
        question=draft.question,
        prompt_text=text,
        answer=draft.answer,
        answer_alt=draft.answer_alt,
    )


def _distinct(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    first: dict[str, Problem] = {}
    for problem in problems:
        first.setdefault(problem.prompt_id, problem)
    return tuple(first.values())


def _lab_drafts(source: str, max_prompts: int | None) -> list[Draft]:
    split = source.partition(":")[2] or "test"
    if split not in ("train", "validation", "test"):
        raise UsageError(f"the lab has no split {split!r}", hint="lab:train|validation|test")
    return [
        Draft(
            dataset=f"lab:{split}",
            level=f"{problem.kind} {problem.level}",
            question=problem.question,
            answer=problem.answer,
            answer_alt=None,
            prompt_text=None,
        )
        for problem in lab_problems(split, max_prompts)
    ]


def _table_drafts(
    table: RowTable,
    question_column: str | None,
    answer_column: str | None,
    template: str | None,
    tokenizer: Any,
) -> list[Draft]:
    if question_column is None and answer_column is None and is_verl(table):
        return verl_drafts(table, template, tokenizer)
    asked = _column(table, "question", question_column, QUESTION_COLUMNS)
    gold = _column(table, "answer", answer_column, ANSWER_COLUMNS)
    return [_row_draft(table, number, row, asked, gold) for number, row in enumerate(table.rows, 1)]


def _column(table: RowTable, role: str, given: str | None, known: tuple[str, ...]) -> str:
    found = given if given is not None else next((c for c in known if c in table.columns), None)
    if found is None or found not in table.columns:
        wanted = f"column {given!r}" if given is not None else f"{role} column"
        raise DataError(
            f"{table.source} has no {wanted}; columns found: {', '.join(table.columns) or 'none'}",
            hint=f"name it with --{role}-column",
        )
    return found


def _row_draft(
    table: RowTable, number: int, row: Mapping[str, Any], asked: str, gold: str
) -> Draft:
    where = f"{table.source}, row {number}"
    answer = text_value(f"{where}, column {gold}", row.get(gold))
    return Draft(
        dataset=table.name,
        level=text_value(f"{where}, column level", row.get("level")) or None,
        question=_question(f"{where}, column {asked}", row.get(asked)),
        answer=answer,
        answer_alt=_other_gold(where, row, answer),
        prompt_text=None,
    )


def _other_gold(where: str, row: Mapping[str, Any], answer: str) -> str | None:
    other = text_value(f"{where}, column {ALT_COLUMN}", row.get(ALT_COLUMN))
    return other if other and other != answer else None


def _question(where: str, value: object) -> str:
    if isinstance(value, str) and value.strip():
        return value
    raise DataError(
        f"{where}: expected the question as text, found {found(value)}",
        hint="name the right column with --question-column, or repair the row",
    )

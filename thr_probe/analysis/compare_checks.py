"""Whether two sources may be compared: what is refused, what is warned about."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NoReturn

from thr_probe.analysis.compare_sums import Answers
from thr_probe.analysis.result import counted
from thr_probe.analysis.sources import GREEDY, SAMPLED, Source
from thr_probe.errors import DataError, UsageError
from thr_probe.traces.reader import Run

_SCORE_OPTIONS = ("temperature", "vocab", "beta", "reduce", "self_influence")


def refuse_disjoint(names: tuple[str, str], first: Answers, second: Answers) -> NoReturn:
    """Two sources that answered other questions.

    Raises:
        DataError: always; the hint says where only the names of the sets differ.
    """
    ours, theirs = first.questions, second.questions
    same_text = set(ours.get_level_values("question")) & set(theirs.get_level_values("question"))
    hint = "compare runs on the same problems"
    if same_text:
        sets = [", ".join(sorted(set(each.get_level_values("dataset")))) for each in (ours, theirs)]
        hint = (
            f"{counted(len(same_text), 'text')} of questions are the same, but in sets of other "
            f"names: {sets[0]} and {sets[1]}"
        )
    raise DataError(
        f"{names[0]} and {names[1]} have no question in common "
        f"({counted(len(ours), 'question')} and {len(theirs):,})",
        hint,
    )


def differences_told(
    first: Source,
    second: Source,
    answers: Mapping[str, tuple[Answers, Answers]],
) -> list[str]:
    """What makes the labels of two sources differ by more than their policies, as sentences.

    Args:
        first: the baseline.
        second: what is compared with it.
        answers: of both, by the measure that both have.
    """
    told: list[str] = []
    for source in (first, second):
        unfinished = [run for run in source.runs if not run.is_complete]
        if unfinished:
            told.append(f"{source.name} is not complete: compared is the part that is there")
    for measure, (ours, theirs) in answers.items():
        runs = [
            source.greedy if measure == GREEDY else source.sampled for source in (first, second)
        ]
        told += _of_questions(first.name, second.name, measure, ours, theirs)
        told += _of_runs(first.name, second.name, measure, runs[0], runs[1])
    return list(dict.fromkeys(told))


def refuse(told: Sequence[str]) -> None:
    """Warnings as errors.

    Raises:
        UsageError: there are some.
    """
    if told:
        raise UsageError(
            f"--strict: {'; '.join(told)}", "compare runs that differ in their policy alone"
        )


def _of_questions(
    first: str, second: str, measure: str, ours: Answers, theirs: Answers
) -> Iterator[str]:
    shared = ours.questions[ours.questions.isin(theirs.questions)]
    alone = [len(each.questions) - len(shared) for each in (ours, theirs)]
    for name, number in ((first, alone[0]), (second, alone[1])):
        if number:
            alone_in = counted(number, "question")
            yield f"{measure}: {alone_in} only in {name}, left out; {len(shared):,} are compared"
    prompts, golds = (
        int((ours.problems.loc[shared, name] != theirs.problems.loc[shared, name]).sum())
        for name in ("prompt_text", "answer")
    )
    if prompts:
        yield (
            f"the prompts of {prompts:,} of {counted(len(shared), 'shared question')} differ: "
            "the template is compared along with the policy"
        )
    if golds:
        yield f"the gold answers of {golds:,} of {counted(len(shared), 'shared question')} differ"
    sizes = [sorted(set(each.groups["n"].tolist())) for each in (ours, theirs)]
    if sizes[0] != sizes[1] and measure == SAMPLED:
        smallest = min(sizes[0] + sizes[1])
        yield (
            f"completions per question: {_span(sizes[0])} for {first}, {_span(sizes[1])} for "
            f"{second}; Pass@K is compared up to K = {smallest}, any-of-n favours the "
            "larger n, and which groups are mixed, in which THR is compared, depends on n"
        )


def _of_runs(
    first: str, second: str, measure: str, ours: Sequence[Run], theirs: Sequence[Run]
) -> Iterator[str]:
    checks: list[tuple[str, Callable[[Run], object], str]] = [
        ("longest completion", _max_tokens, "more of the shorter may be cut off"),
        ("verifier", _verifier, "the same answer may be judged otherwise"),
        ("cut-off completions", _truncated, "the same completion may be judged otherwise"),
        ("tokenizer", _tokenizer, "tokens are of other lengths"),
    ]
    if measure == SAMPLED:
        why = "what differs is the sampling, not only the policy"
        checks[:0] = [
            ("TEMPERATURE", lambda run: run.config.get("temperature", "unknown"), why),
            ("TOP-P", lambda run: run.config.get("top_p", "unknown"), why),
        ]
    for what, value_of, consequence in checks:
        values = [sorted({str(value_of(run)) for run in runs}) for runs in (ours, theirs)]
        # an import without token ids has no tokenizer, and nothing counted in tokens
        known = what != "tokenizer" or all(map(_tokenizer, [*ours, *theirs]))
        if values[0] != values[1] and known:
            if what == "tokenizer":
                yield f"the tokenizers of {first} and {second} differ: {consequence}"
            else:
                yield (
                    f"{what}: {_listed(values[0])} for {first}, {_listed(values[1])} for {second}; "
                    f"{consequence}"
                )


def _max_tokens(run: Run) -> object:
    return run.manifest.counts.get("max_new_tokens", "unknown")


def _tokenizer(run: Run) -> str | None:
    return run.manifest.tokenizer_digest


def _verifier(run: Run) -> str:
    version = run.manifest.versions.get("math-verify")
    return run.manifest.verifier + (f" (math-verify {version})" if version else "")


def _truncated(run: Run) -> str:
    return "always wrong" if run.config.get("truncated_wrong") else "judged by their text"


def score_differences(
    first: Source, second: Source, *, score_id: str | None = None
) -> Iterator[str]:
    """What makes THR of two sources another quantity, as sentences.

    Args:
        first: the baseline.
        second: what is compared with it.
        score_id: which scores are compared.
    """
    infos = [_score_infos(source, score_id) for source in (first, second)]
    if not all(infos):
        return
    for name in _SCORE_OPTIONS:
        values = [sorted({str(info.get(name, "unknown")) for info in each}) for each in infos]
        if values[0] != values[1]:
            yield (
                f"scores: {name} is {_listed(values[0])} for {first.name}, {_listed(values[1])} "
                f"for {second.name}; THR is not the same quantity"
            )


def _score_infos(source: Source, score_id: str | None) -> list[dict[str, object]]:
    return [
        run.score_info(run.resolve_score_id(score_id)) for run in source.sampled if run.score_ids
    ]


def _span(sizes: Sequence[int]) -> str:
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))

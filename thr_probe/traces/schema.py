"""The one declaration of the trace on disk: every table, column, type, unit and meaning.

The writer, the reader, the validation and the documentation are all driven by `TABLES`. The key of
rollouts and scores is (step, prompt_id, rollout_id). A list column of rollouts or scores holds one
value per completion token, so the lists of a row have equal lengths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from thr_probe.errors import UsageError

SCHEMA_VERSION = 1
VERSION_KEY = b"thr_probe.schema_version"
TABLE_KEY = b"thr_probe.table"
KEY_COLUMNS = ("step", "prompt_id", "rollout_id")

# "element" is the name that Parquet itself gives to the entries
_FLOATS = pa.list_(pa.field("element", pa.float32()))
_IDS = pa.list_(pa.field("element", pa.int32()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of one table of the trace."""

    name: str
    """Name in the Parquet file."""
    type: pa.DataType
    """Arrow type, exactly."""
    unit: str
    """Unit of the values, or what kind of value it is."""
    meaning: str
    """What a value says, and when it is null."""
    required: bool = True
    """Whether every file of the table has the column."""
    nullable: bool = False
    """Whether single values may be null."""
    source: str = ""
    """For an optional column: what has to be done to get it."""
    values: tuple[str, ...] = ()
    """For a column of states: the only values it may hold."""
    infinite: bool = False
    """Whether an infinite number is a value."""

    @property
    def is_list(self) -> bool:
        """Whether a value is a list (in rollouts and scores: one entry per completion token)."""
        return bool(pa.types.is_list(self.type))

    @property
    def is_float(self) -> bool:
        """Whether the values, or the entries of the lists, are floating point numbers."""
        return bool(pa.types.is_floating(self.type.value_type if self.is_list else self.type))


_STEP = Column(
    name="step",
    type=pa.int32(),
    unit="rollout batches",
    meaning="index of the rollout batch within a training run; null outside training",
    nullable=True,
)
_PROMPT_ID = Column(
    name="prompt_id",
    type=pa.string(),
    unit="id",
    meaning="content hash of question and prompt; joins problems, rollouts and scores",
)
_ROLLOUT_ID = Column(
    name="rollout_id",
    type=pa.int32(),
    unit="index",
    meaning="0-based index of the completion within its group",
)

_PROBLEMS = (
    _PROMPT_ID,
    Column(
        name="dataset",
        type=pa.string(),
        unit="name",
        meaning="problem set that the problem comes from",
    ),
    Column(
        name="level",
        type=pa.string(),
        unit="name",
        meaning="difficulty or kind as the problem set names it; null where it names none",
        nullable=True,
    ),
    Column(name="question", type=pa.string(), unit="text", meaning="the question, no template"),
    Column(
        name="prompt_text",
        type=pa.string(),
        unit="text",
        meaning="the text that the policy continued, template applied",
    ),
    Column(
        name="prompt_token_ids",
        type=_IDS,
        unit="token ids",
        meaning="the prompt as the policy read it",
        required=False,
        nullable=True,
        source="collect with a sampler that tokenizes the prompt itself",
    ),
    Column(name="answer", type=pa.string(), unit="text", meaning="the gold answer"),
    Column(
        name="answer_alt",
        type=pa.string(),
        unit="text",
        meaning="a second accepted form of the gold answer; null where there is none",
        required=False,
        nullable=True,
        source="only some problem sets carry a second form of the answer",
    ),
)

_TOKENS = (
    Column(
        name="token_id",
        type=pa.int32(),
        unit="token id",
        meaning="an id that occurs in the run's completions; ascending, each once",
    ),
    Column(
        name="bytes",
        type=pa.binary(),
        unit="bytes",
        meaning="the bytes that the token stands for (part of a character is possible)",
    ),
    Column(
        name="text",
        type=pa.string(),
        unit="text",
        meaning="the token decoded on its own; incomplete characters as U+FFFD",
    ),
)

_ROLLOUTS = (
    _STEP,
    _PROMPT_ID,
    _ROLLOUT_ID,
    Column(name="text", type=pa.string(), unit="text", meaning="the decoded completion"),
    Column(
        name="token_ids",
        type=_IDS,
        unit="token ids",
        meaning="the completion's tokens, the end-of-sequence token included where it was emitted",
        required=False,
        nullable=True,
        source="collect the run with thr-probe, or give its importer the policy's tokenizer",
    ),
    Column(
        name="sampler_logprobs",
        type=_FLOATS,
        unit="nats",
        meaning="log-probability of each token under the distribution it was sampled from "
        "(temperature and top-p applied)",
        required=False,
        nullable=True,
        source="collect with a sampler that returns log-probabilities",
    ),
    Column(
        name="finish_reason",
        type=pa.string(),
        unit="state",
        meaning="why the completion ended; length means it was cut off, unknown that an imported "
        "file does not say",
        values=("stop", "length", "abort", "unknown"),
    ),
    Column(
        name="reward",
        type=pa.float64(),
        unit="reward",
        meaning="what the verifier gave; 1 and 0 for a binary verifier",
    ),
    Column(
        name="correct", type=pa.bool_(), unit="true or false", meaning="whether it counts as right"
    ),
    Column(
        name="extracted",
        type=pa.string(),
        unit="text",
        meaning="the answer that the verifier found in the completion; null where it found none",
        nullable=True,
    ),
    Column(name="verifier", type=pa.string(), unit="name", meaning="the verifier that judged"),
    Column(
        name="verify_status",
        type=pa.string(),
        unit="state",
        meaning="how the judging ended",
        values=("ok", "timeout", "parse_fail", "error"),
    ),
    Column(
        name="ids_source",
        type=pa.string(),
        unit="state",
        meaning="where token_ids come from: the sampler, the text tokenized again, or nowhere",
        values=("sampled", "retokenized", "absent"),
    ),
    Column(
        name="seed",
        type=pa.int64(),
        unit="seed",
        meaning="seed that the completion was drawn with; null where an imported file does not say",
        nullable=True,
    ),
)

_SCORES = (
    _STEP,
    _PROMPT_ID,
    _ROLLOUT_ID,
    Column(
        name="advantage",
        type=pa.float32(),
        unit="group standard deviations",
        meaning="GRPO advantage of the completion (eq. 1); 0 where the whole group agrees",
    ),
    Column(
        name="q",
        type=pa.float32(),
        unit="share",
        meaning="share of the group's completions that are correct, in [0, 1]",
    ),
    Column(
        name="num_correct",
        type=pa.int32(),
        unit="completions",
        meaning="correct completions of the group",
    ),
    Column(
        name="tau",
        type=pa.float32(),
        unit="as thr",
        meaning="the group's threshold: a token with |thr| > tau is dominant; -inf keeps every "
        "token; null where the group has no correct completion",
        nullable=True,
        infinite=True,
    ),
    Column(
        name="retained",
        type=pa.float32(),
        unit="share",
        meaning="share of the completion's tokens with |thr| > tau, in [0, 1]; null where tau is",
        nullable=True,
    ),
    Column(
        name="thr",
        type=_FLOATS,
        unit="raw, grows with the squared norm of the hidden states and the number of correct",
        meaning="token hidden reward (Def. 4.1, Cor. 4.2), positive = exploitation; "
        "null where the group has no correct completion, never 0 for that reason",
        nullable=True,
    ),
    Column(
        name="entropy",
        type=_FLOATS,
        unit="nats",
        meaning="entropy of the policy's distribution that predicts the token",
    ),
    Column(
        name="logprob",
        type=_FLOATS,
        unit="nats",
        meaning="log-probability of the token under the scoring policy",
    ),
    Column(
        name="thr_self",
        type=_FLOATS,
        unit="as thr",
        meaning="the part of thr that comes from the token itself; null where thr is",
        required=False,
        nullable=True,
        source="score with --split",
    ),
    Column(
        name="thr_within",
        type=_FLOATS,
        unit="as thr",
        meaning="the part of thr that comes from the token's own completion; null where thr is",
        required=False,
        nullable=True,
        source="score with --split",
    ),
    Column(
        name="thr_error",
        type=_FLOATS,
        unit="as thr",
        meaning="certified bound on the error of thr from a restricted vocabulary; null where thr "
        "is",
        required=False,
        nullable=True,
        source="score with --thr-error",
    ),
    Column(
        name="ref_logprobs",
        type=_FLOATS,
        unit="nats",
        meaning="log-probability of the token under the reference policy",
        required=False,
        nullable=True,
        source="score with a reference policy",
    ),
)

TABLES: Mapping[str, Mapping[str, Column]] = {
    name: {column.name: column for column in columns}
    for name, columns in {
        "problems": _PROBLEMS,
        "tokens": _TOKENS,
        "rollouts": _ROLLOUTS,
        "scores": _SCORES,
    }.items()
}

COMPLETION_COLUMNS: Mapping[str, Column] = {**TABLES["rollouts"], **TABLES["scores"]}

_TABLE_MEANINGS = {
    "problems": "`problems.parquet`: one row per problem",
    "tokens": "`tokens.parquet`: one row per token id that occurs",
    "rollouts": "`rollouts/part-00000.parquet` ...: one row per completion",
    "scores": "`scores/<score_id>/part-00000.parquet` ...: one row per completion, "
    "row by row beside the rollouts part of the same number",
}


def arrow_schema(table: str, columns: Sequence[str] | None = None) -> pa.Schema:
    """The Arrow schema of a table, with schema version and table name as metadata.

    Args:
        table: one of `TABLES`.
        columns: the columns wanted, kept in the declared order; all by default.
    """
    declared = TABLES[table]
    unknown = sorted(set(columns or ()) - declared.keys())
    if unknown:
        raise UsageError(f"table {table} has no column {', '.join(unknown)}")
    fields = [
        pa.field(column.name, column.type, nullable=column.nullable, metadata={"unit": column.unit})
        for column in declared.values()
        if columns is None or column.name in columns
    ]
    metadata = {VERSION_KEY: str(SCHEMA_VERSION).encode(), TABLE_KEY: table.encode()}
    return pa.schema(fields, metadata=metadata)


def schema_markdown() -> str:
    """The schema as Markdown tables, for the documentation."""
    lines = [f"Schema version {SCHEMA_VERSION}. Key: ({', '.join(KEY_COLUMNS)})."]
    for table, columns in TABLES.items():
        lines += ["", f"## {_TABLE_MEANINGS[table]}", ""]
        lines += ["| column | type | unit | meaning |", "| --- | --- | --- | --- |"]
        lines += [_markdown_row(column) for column in columns.values()]
    return "\n".join(lines) + "\n"


def type_name(kind: pa.DataType) -> str:
    """The type as the documentation writes it, such as `list<float32>`."""
    is_list = pa.types.is_list(kind)
    name = str(kind.value_type if is_list else kind)
    name = {"float": "float32", "double": "float64"}.get(name, name)
    return f"list<{name}>" if is_list else name


def _markdown_row(column: Column) -> str:
    kind = type_name(column.type) + (" null" if column.nullable else "")
    notes = [f"one of {', '.join(column.values)}"] if column.values else []
    notes += [] if column.required else [f"optional: {column.source}"]
    meaning = "; ".join([column.meaning, *notes]).replace("|", "\\|")
    return f"| `{column.name}` | {kind} | {column.unit} | {meaning} |"

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from thr_probe.errors import DataError, UsageError
from thr_probe.lab import policy_directory
from thr_probe.problems import load_verifier
from thr_probe.traces.importers.foreign import ImportOptions, Refused
from thr_probe.traces.importers.lighteval import IMPORTER

FIXTURES = Path(__file__).parent / "fixtures" / "lighteval"
DATE = "2026-11-26T01-49-01.326120"


def read(path, **options):
    return list(IMPORTER.read(IMPORTER.find(path), ImportOptions(**options)))


def fixture(task):
    return FIXTURES / f"details_lab_{task}_0_{DATE}.parquet"


def detail(doc=(), said=(), metric=None):
    return {
        "doc": {
            "query": "2 + 2?",
            "choices": ["4"],
            "gold_index": 0,
            "id": "7",
            "instruction": None,
            "fewshot_samples": [],
            "stop_sequences": [],
            **dict(doc),
        },
        "metric": {"em": 1.0} if metric is None else metric,
        "model_response": {
            "input": None,
            "input_tokens": [5, 6],
            "text": ["four"],
            "output_tokens": [[8, 9]],
            "padded_tokens_count": 0,
            **dict(said),
        },
    }


def written(folder, *rows, name=f"details_sums|0_{DATE}.parquet"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def only(tmp_path, **parts):
    return read(written(tmp_path, detail(**parts)))[0]


def test_single_completions_carry_the_metric_as_label():
    rows = read(fixture("greedy"), reward_column="avg@n:n=1")
    by_question = {each.question: each for each in rows}
    right = by_question["Question: Find x: 3 * x + 16 = 184.\nAnswer:"]
    assert (right.reward, right.correct, right.answer) == (1.0, True, "\\boxed{56}")
    assert right.text.endswith("\\boxed{56}")
    assert (right.dataset, right.verifier) == ("lab_greedy_0", "lighteval:avg@n:n=1")
    assert [each.correct for each in rows].count(True) == 1
    assert len(rows) == 6


def test_several_metrics_need_a_choice():
    with pytest.raises(UsageError, match=r"row 1: several metrics: avg@n:n=1, em"):
        read(fixture("greedy"))
    message = "the column metric has no acc, found avg@n:n=1, em"
    with pytest.raises(DataError, match=message):
        read(fixture("greedy"), reward_column="acc")


def test_graded_by_us_the_groups_have_the_means_that_lighteval_reports():
    rows = read(fixture("sampled"))
    assert {(each.reward, each.correct) for each in rows} == {(None, None)}
    logged = {
        record["doc"]["query"]: record["metric"]["avg@n:n=4"]
        for record in pq.read_table(fixture("sampled")).to_pylist()
    }
    with load_verifier("math", num_workers=1) as verifier:
        graded = verifier.verify([each.text for each in rows], [each.answer for each in rows])
    found = defaultdict(list)
    for each, verdict in zip(rows, graded, strict=True):
        found[each.question].append(float(verdict.correct))
    assert {question: sum(own) / 4 for question, own in found.items()} == logged


def test_ids_are_those_of_the_text_and_the_prompt_without_padding():
    tokenizer = AutoTokenizer.from_pretrained(policy_directory())
    rows = read(fixture("sampled"))
    for each in rows:
        assert tokenizer.decode(each.prompt_token_ids) == each.prompt_text
        if each.token_ids is not None:
            assert tokenizer.decode(each.token_ids, skip_special_tokens=True) == each.text
            assert list(each.token_ids).count(tokenizer.eos_token_id) <= 1
            ended = each.token_ids[-1] == tokenizer.eos_token_id
            assert ended or each.finish_reason is None
    assert Counter(each.finish_reason for each in rows)["stop"] >= 18
    assert sum(each.token_ids is None for each in rows) == 1  # the text ends in 00


def test_likelihood_tasks_are_refused():
    rows = read(fixture("choice"))
    assert {each.reason for each in rows} == {
        "likelihoods were compared, nothing was sampled (multiple choice)"
    }
    assert len(rows) == 6


def test_files_are_found_by_name_and_columns(tmp_path):
    path = written(tmp_path / "details" / "org" / "lab" / DATE, detail())
    pq.write_table(pa.table({"example": ["old"]}), path.with_name(f"details_old_{DATE}.parquet"))
    assert IMPORTER.find(tmp_path) == [path]
    each = read(tmp_path)[0]
    assert (each.model, each.dataset) == ("lab", "sums|0")
    assert IMPORTER.find(fixture("greedy")) == [fixture("greedy")]


def test_a_row_without_the_columns_names_file_and_column(tmp_path):
    path = written(tmp_path, {"doc": {"id": "1"}, "metric": {"em": 1}})
    with pytest.raises(DataError, match="row 1: column model_response is missing or no structure"):
        list(IMPORTER.read([path], ImportOptions()))


def test_a_file_that_was_cut_off_is_named(tmp_path):
    path = written(tmp_path, detail())
    path.write_bytes(path.read_bytes()[:-30])
    assert IMPORTER.find(tmp_path) == [path]
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        list(IMPORTER.read([path], ImportOptions()))


@pytest.mark.parametrize(
    ("value", "label"), [(1, (1.0, True)), (0.0, (0.0, False)), (0.4, (0.4, None))]
)
def test_only_0_and_1_are_labels(tmp_path, value, label):
    each = only(tmp_path, metric={"em": value})
    assert (each.reward, each.correct) == label


def test_no_metric_means_no_label(tmp_path):
    each = only(tmp_path, metric={"judge": "fine"})
    assert (each.reward, each.correct, each.verifier) == (None, None, None)


@pytest.mark.parametrize(
    ("doc", "answers"),
    [
        ({"choices": [" 3", " 4"], "gold_index": 1}, ("4", None)),
        ({"choices": ["3", "4", "four"], "gold_index": [1, 2]}, ("4", "four")),
        ({"choices": ["3"], "gold_index": 5}, (None, None)),
        ({"choices": [], "gold_index": None}, (None, None)),
    ],
)
def test_gold_answers(tmp_path, doc, answers):
    each = only(tmp_path, doc=doc)
    assert (each.answer, each.answer_alt) == answers


def test_the_prompt_is_the_input_where_the_engine_kept_it(tmp_path):
    prompt = "<|im_start|>user\n2 + 2?<|im_end|>\n"
    said = {"input": prompt, "output_tokens": [[8, 9, 9]]}
    each = only(tmp_path, said=said)
    assert (each.prompt_text, each.question, each.token_ids) == (prompt, "2 + 2?", [8, 9, 9])
    messages = [{"role": "user", "content": "2 + 2?"}]
    chat = only(tmp_path, said={"input": messages})
    assert (chat.prompt_text, chat.prompt_messages) == ("2 + 2?", messages)
    assert each.prompt_messages is None


def test_the_prompt_is_put_together_as_lighteval_does(tmp_path):
    shot = {"query": "Add. 1 + 1?", "choices": ["2"], "gold_index": 0, "instruction": "Add. "}
    doc = {"query": "Add. 2 + 2?", "instruction": "Add. ", "fewshot_samples": [shot]}
    each = only(tmp_path, doc=doc)
    assert each.prompt_text == "Add. \n\n1 + 1? 2\n\n2 + 2?"
    assert each.question == "2 + 2?"


@pytest.mark.parametrize(
    ("text", "ids", "kept", "finish"),
    [
        ("7 8", [7, 8, 1, 1, 1], [7, 8, 1], "stop"),
        ("7 8", [7, 8, 1], [7, 8, 1], None),
        ("700", [7, 0, 0], None, None),
        ("7abab", [7, 5, 5], None, None),
        ("", [1, 1], [1], "stop"),
        ("", [], [], None),
    ],
)
def test_padding_is_cut_off_unless_the_text_repeats_too(tmp_path, text, ids, kept, finish):
    said = {"text": [text, "x"], "output_tokens": [ids, [3, 4]]}
    each = only(tmp_path, said=said)
    assert (each.token_ids, each.finish_reason) == (kept, finish)


def test_ids_that_may_not_be_those_of_the_text_are_left_out(tmp_path):
    assert only(tmp_path, doc={"stop_sequences": ["Q:"]}).token_ids is None
    assert only(tmp_path, said={"output_tokens": []}).token_ids is None
    assert only(tmp_path, said={"padded_tokens_count": 1}).prompt_token_ids == [6]
    assert only(tmp_path, said={"padded_tokens_count": 2}).prompt_token_ids is None


def test_samples_of_a_document_are_its_group(tmp_path):
    said = {"text": ["a", "b"], "output_tokens": [[1], [2]]}
    rows = read(written(tmp_path, detail(said=said), detail(doc={"id": "8"}, said=said)))
    assert [each.group.rpartition(":")[2] for each in rows] == ["7", "7", "8", "8"]
    assert rows[1].where.endswith("row 1, completion 2")
    assert not any(isinstance(each, Refused) for each in rows)

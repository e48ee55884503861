"""The sampler over a server: what it asks and what it makes of the answers.

The server is real HTTP on loopback (tests/fake_server.py), its model a table.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter

import pytest
from fake_server import answers, error, fails
from server_cases import (
    EOS,
    TEXTS,
    TOKENIZER,
    asked,
    check,
    expected,
    prompts,
    sampler_of,
    settings_of,
)
from tiny_models import byte_tokenizer

from thr_probe.errors import DataError
from thr_probe.sampling import FinishReason, IdsSource, Prompt
from thr_probe.sampling.openai import request_seed
from thr_probe.sampling.server_errors import ServerError

pytestmark = pytest.mark.usefixtures("calm")


# --- what is asked, and what comes back


def test_groups_are_what_the_server_drew_with_ids_logprobs_and_ends(fake):
    settings = settings_of()
    groups = sampler_of(fake).sample(prompts(), settings)
    wanted = expected(fake, settings)
    check(groups, wanted)
    reasons = Counter(item.finish_reason for group in groups for item in group)
    assert set(reasons) == {FinishReason.STOP, FinishReason.LENGTH}
    assert len({ids for group in wanted for ids, _, _ in group}) > 6


def test_a_prompt_goes_out_once_as_ids_with_every_setting(fake):
    settings = settings_of(temperature=0.8, top_p=0.9)
    sampler_of(fake).sample(prompts(), settings)
    bodies = sorted(asked(fake), key=lambda body: body["seed"])
    wanted = sorted(prompts(), key=lambda one: request_seed(7, one.prompt_id, 0))
    assert [body["prompt"] for body in bodies] == [list(one.token_ids) for one in wanted]
    for body in bodies:
        assert body["temperature"] == 0.8
        assert body["top_p"] == 0.9
        assert body["n"] == 3
        assert body["max_tokens"] == 6
        # the model's generation_config.json would fill these in otherwise
        assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (-1, 0.0, 1.0)


def test_the_same_seed_gives_the_same_groups_and_another_gives_others(fake):
    sampler = sampler_of(fake)
    first = sampler.sample(prompts(), settings_of())
    again = sampler.sample(prompts()[::-1], settings_of())[::-1]
    other = sampler.sample(prompts(), settings_of(seed=8))
    assert first == again
    assert first != other


def test_seeds_fit_31_bits_and_differ_by_prompt_rollout_and_attempt():
    seeds = {
        request_seed(seed, prompt, rollout, attempt)
        for seed in (0, 2**62)
        for prompt in ("a", "b")
        for rollout in (0, 1)
        for attempt in (0, 1)
    }
    assert len(seeds) == 16
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_greedy_sampling_keeps_the_logprobs_at_temperature_one(fake):
    fake.processed = True
    settings = settings_of(temperature=0.0, group_size=1)
    check(sampler_of(fake).sample(prompts(), settings), expected(fake, settings))


def test_the_dialect_is_found_out_once(fake):
    sampler = sampler_of(fake)
    sampler.sample(prompts(), settings_of())
    small = len(fake.bodies) - len(asked(fake))
    sampler.sample(prompts(), settings_of())
    assert len(fake.bodies) - len(asked(fake)) == small == 3


def test_no_more_requests_at_once_than_allowed(fake):
    fake.delay = 0.02
    many = [
        Prompt(prompt_id=f"q{place}", token_ids=TOKENIZER.encode("the ab")) for place in range(24)
    ]
    sampler_of(fake, concurrency=5).sample(many, settings_of())
    assert fake.most_at_once == 5


def test_no_prompts_ask_nothing(fake):
    assert sampler_of(fake).sample([], settings_of()) == []
    assert fake.bodies == []


def test_a_group_of_one(fake):
    settings = settings_of(group_size=1)
    check(sampler_of(fake).sample(prompts(), settings), expected(fake, settings))


def test_a_large_group_is_asked_for_in_several_requests(fake):
    group = sampler_of(fake).sample(prompts()[:1], settings_of(group_size=70))[0]
    assert sorted(body["n"] for body in asked(fake)) == [6, 32, 32]
    assert len(group) == 70
    assert len({body["seed"] for body in asked(fake)}) == 3


def test_a_server_that_draws_a_request_with_one_seed_is_asked_once_per_rollout(fake):
    fake.one_seed = True
    groups = sampler_of(fake).sample(prompts(), settings_of())
    check(groups, expected(fake, settings_of(), first_of_each=True))
    assert {body["n"] for body in asked(fake)} == {1}


def test_groups_of_one_completion_repeated_are_suspected(fake):
    draw = fake.model.draw
    fake.model.draw = lambda ids, *, seed, **options: draw(ids, seed=1, **options)
    with pytest.warns(UserWarning, match="in all 4 groups the completions are alike"):
        sampler_of(fake).sample(prompts(), settings_of())
    sampler_of(fake).sample(prompts(), settings_of(temperature=0.0))


# --- the kind of logprobs


@pytest.mark.parametrize(
    ("temperature", "top_p"), [(0.7, 1.0), (1.0, 0.95), (1.3, 0.6), (1.0, 1.0)]
)
def test_logprobs_of_the_distribution_drawn_from_are_kept(fake, temperature, top_p):
    settings = settings_of(temperature=temperature, top_p=top_p)
    check(sampler_of(fake).sample(prompts(), settings), expected(fake, settings))


@pytest.mark.parametrize(
    ("temperature", "top_p", "lacking"),
    [(0.7, 1.0, "lack the temperature"), (1.0, 0.95, "lack top-p"), (0.7, 0.9, "temperature")],
)
def test_raw_logprobs_are_left_out_where_they_are_not_those_drawn_from(
    fake, temperature, top_p, lacking
):
    fake.processed = False
    settings = settings_of(temperature=temperature, top_p=top_p)
    sampler = sampler_of(fake)
    with pytest.warns(UserWarning, match=f"{lacking}.*processed_logprobs"):
        groups = sampler.sample(prompts(), settings)
    check(groups, expected(fake, settings), logprobs=False)
    sampler.sample(prompts(), settings)  # told once


def test_raw_logprobs_are_the_right_ones_at_temperature_one(fake):
    fake.processed = False
    check(sampler_of(fake).sample(prompts(), settings_of()), expected(fake, settings_of()))


# --- servers that know less


def test_a_server_that_takes_no_ids_gets_text_and_the_user_is_told(fake):
    fake.takes_ids = False
    with pytest.warns(UserWarning, match="its own tokenization counts"):
        groups = sampler_of(fake).sample(prompts(), settings_of())
    check(groups, expected(fake, settings_of()))
    assert {body["prompt"] for body in asked(fake)} == set(TEXTS)


def test_ids_spelled_as_tokens_are_sampled_ids(fake):
    fake.gives_ids = "tokens"
    check(sampler_of(fake).sample(prompts(), settings_of()), expected(fake, settings_of()))


def test_ids_in_the_form_of_llama_cpp_are_sampled_ids(fake):
    fake.gives_ids = "content"
    settings = settings_of(temperature=0.6, top_p=0.9)
    check(sampler_of(fake).sample(prompts(), settings), expected(fake, settings))


def test_without_ids_the_text_is_tokenized_again_and_marked(fake):
    fake.gives_ids, fake.model.end_logit = "none", -1.0
    settings = settings_of(max_new_tokens=20, group_size=8)
    with pytest.warns(UserWarning, match="tells no token ids"), pytest.warns(match="do not fit"):
        groups = sampler_of(fake).sample(prompts(), settings)
    # "ab" is one token of the vocabulary: sampled as two, there ids differ and logprobs go
    merged = 0
    for group, wanted in zip(groups, expected(fake, settings), strict=True):
        for completion, (ids, values, reason) in zip(group, wanted, strict=True):
            text = TOKENIZER.decode(ids, skip_special_tokens=True)
            again = TOKENIZER.encode(text) + ([EOS] if reason == "stop" else [])
            assert completion.text == text
            assert completion.token_ids == tuple(again)
            assert completion.ids_source is IdsSource.RETOKENIZED
            if tuple(again) == ids:
                assert completion.logprobs == pytest.approx(values, abs=1e-12)
            else:
                merged += 1
                assert completion.logprobs is None
    assert 0 < merged < 32


def test_without_ids_and_without_counts_prompts_go_as_text(fake):
    fake.gives_ids, fake.counts_prompt = "none", False
    told = "does not show which tokens it reads"
    with pytest.warns(UserWarning, match="no token ids"), pytest.warns(UserWarning, match=told):
        sampler_of(fake).sample(prompts(), settings_of())
    assert all(isinstance(body["prompt"], str) for body in asked(fake))


def test_a_server_of_openais_own_parameters_only_is_asked_without_the_others(fake):
    fake.takes_extras, fake.gives_ids = False, "none"
    with pytest.warns(UserWarning, match="tells no token ids"):
        sampler_of(fake).sample(prompts(), settings_of())
    assert not any("top_k" in body or "return_token_ids" in body for body in asked(fake))


def test_a_server_without_logprobs_gives_completions_without_them(fake):
    fake.gives_logprobs = False
    with pytest.warns(UserWarning, match="no log-probabilities"):
        groups = sampler_of(fake).sample(prompts(), settings_of())
    check(groups, expected(fake, settings_of()), logprobs=False)


def test_a_server_that_ignores_n_is_asked_once_per_rollout_with_other_seeds(fake):
    fake.honours_n = False
    groups = sampler_of(fake).sample(prompts(), settings_of())
    check(groups, expected(fake, settings_of(), first_of_each=True))
    assert len(asked(fake)) == 12
    assert len({body["seed"] for body in asked(fake)}) == 12


def test_choices_that_are_missing_from_one_answer_are_asked_for_again(fake):
    sampler = sampler_of(fake, concurrency=1)
    sampler.sample(prompts()[:1], settings_of())
    fake.bodies.clear()

    def one_only(handler):
        status, answer = fake.completion(fake.bodies[-1] | {"n": 1})
        handler.answer(status, answer)

    fake.faults.append(one_only)
    group = sampler.sample(prompts()[:1], settings_of())[0]
    assert len(group) == 3
    assert [body["n"] for body in asked(fake)] == [3, 2]
    assert len({body["seed"] for body in asked(fake)}) == 2


def test_an_end_of_sequence_that_the_server_takes_off_is_put_back(fake):
    fake.strips_eos = True
    with pytest.warns(UserWarning, match="do not fit"):
        groups = sampler_of(fake).sample(prompts(), settings_of())
    for group, wanted in zip(groups, expected(fake, settings_of()), strict=True):
        for completion, (ids, values, reason) in zip(group, wanted, strict=True):
            assert completion.token_ids == ids
            # nobody told the log-probability of the token that was put back
            if reason == "stop":
                assert completion.logprobs is None
            else:
                assert completion.logprobs == pytest.approx(values, abs=1e-12)


def test_of_several_ends_none_is_guessed(fake):
    fake.strips_eos = True
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        groups = sampler_of(fake, eos_ids=(0, EOS)).sample(prompts(), settings_of())
    assert any("2 that could have" in str(item.message) for item in caught)
    stopped = [item for group in groups for item in group if item.finish_reason == "stop"]
    assert stopped
    assert not any(EOS in item.token_ids for item in stopped)


def test_finish_reasons_other_than_stop_and_length_are_aborts(fake):
    fake.finish = {"length": "content_filter"}
    groups = sampler_of(fake).sample(prompts(), settings_of())
    wanted = expected(fake, settings_of())
    for group, wanted_group in zip(groups, wanted, strict=True):
        for completion, (_, _, reason) in zip(group, wanted_group, strict=True):
            assert completion.finish_reason == ("abort" if reason == "length" else "stop")


def test_a_missing_finish_reason_is_told_from_the_ids(fake):
    fake.finish = {"length": None, "stop": None}
    check(sampler_of(fake).sample(prompts(), settings_of()), expected(fake, settings_of()))


def test_a_prompt_that_gets_no_completion_is_named(fake):
    empty = {"choices": [{"text": "", "finish_reason": "content_filter", "token_ids": []}]}
    fake.faults.extend([answers(empty)] * 3)
    with pytest.raises(ServerError, match="no completion of prompt p0, 3 times"):
        sampler_of(fake).sample(prompts()[:1], settings_of())


def test_another_tokenizer_is_an_error_that_names_both_models(fake):
    fake.name = "served"
    other = byte_tokenizer()
    other.add_tokens(["the ab"])
    fake.tokenizer = other
    with pytest.raises(DataError, match="served model 'served' is not that of the policy 'tiny'"):
        sampler_of(fake).sample(prompts(), settings_of())


# --- prompts told of beforehand


def test_prompts_told_of_beforehand_are_sent_at_once_and_give_the_same_groups(fake):
    sampler = sampler_of(fake)
    sampler.expect(prompts(), settings_of())
    deadline = time.monotonic() + 5
    while len(asked(fake)) < len(TEXTS):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    groups = [sampler.sample([prompt], settings_of())[0] for prompt in prompts()]
    check(groups, expected(fake, settings_of()))
    assert len(asked(fake)) == len(TEXTS)


def test_no_more_is_begun_beforehand_than_keeps_the_server_busy(fake):
    many = [
        Prompt(prompt_id=f"q{place}", token_ids=TOKENIZER.encode("the ab")) for place in range(20)
    ]
    sampler = sampler_of(fake, concurrency=1)
    for first in range(0, 20, 5):
        sampler.expect(iter(many[first:]), settings_of())
        assert len(sampler.begun) == 4
        assert len(sampler.sample(many[first : first + 5], settings_of())) == 5
        assert len(sampler.begun) == 0
    assert len(asked(fake)) == 20


def test_a_failure_beforehand_is_told_when_its_group_is_asked_for(fake):
    sampler = sampler_of(fake, concurrency=1)
    sampler.sample(prompts()[:1], settings_of())

    def good(handler):
        handler.answer(*fake.completion(fake.bodies[-1]))

    fake.faults.extend([good, fails(400, error("bad"))])
    sampler.expect(prompts(), settings_of())
    sampler.sample(prompts()[:1], settings_of())
    with pytest.raises(ServerError, match="bad"):
        sampler.sample(prompts()[1:2], settings_of())
    # and a later call begins anew
    check(sampler.sample(prompts(), settings_of()), expected(fake, settings_of()))

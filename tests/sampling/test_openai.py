"""The sampler over a server: what it asks, what it makes of the answers, what it does in trouble.

The server is real HTTP on loopback (tests/fake_server.py), its model a table.
"""

from __future__ import annotations

import math
import threading
import time
import warnings
from collections import Counter
from datetime import UTC, datetime

import pytest
from fake_server import FakeModel, FakeServer, answers, breaks_off, error, fails, hangs, is_real
from tiny_models import byte_tokenizer

from thr_probe.errors import DataError, PrerequisiteError, UsageError
from thr_probe.sampling import FinishReason, IdsSource, Prompt, SamplingSettings
from thr_probe.sampling import server as server_module
from thr_probe.sampling.openai import OpenAISampler, request_seed
from thr_probe.sampling.server_errors import ServerError, retry_after

EOS = 1
TOKENIZER = byte_tokenizer()
TEXTS = ("the ab", "in the", "a", "éa the in")


@pytest.fixture(autouse=True)
def _calm(monkeypatch):
    for name in ("OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(server_module, "FIRST_PAUSE", 0.01)


@pytest.fixture
def fake():
    with FakeServer(FakeModel(TOKENIZER, eos_id=EOS)) as server:
        yield server


def sampler_of(fake, **options):
    address = None if fake is None else fake.url
    defaults = {"base_url": address, "tokenizer": TOKENIZER, "eos_ids": (EOS,)}
    defaults |= {"policy_name": "tiny", "concurrency": 4, "retries": 3, "request_timeout": 5.0}
    return OpenAISampler(**(defaults | options))


def prompts():
    return [
        Prompt(prompt_id=f"p{place}", token_ids=TOKENIZER.encode(text))
        for place, text in enumerate(TEXTS)
    ]


def settings_of(**options):
    return SamplingSettings(**({"group_size": 3, "max_new_tokens": 6, "seed": 7} | options))


def expected(fake, settings, *, first_of_each=False):
    """What the fake model draws for the requests that a sampler should make."""
    groups = []
    for prompt in prompts():
        group = []
        for rollout in range(settings.group_size):
            base = rollout if first_of_each else 0
            seed = request_seed(settings.seed, prompt.prompt_id, base)
            ids, reason = fake.model.draw(
                prompt.token_ids,
                seed=seed + rollout - base,
                max_tokens=settings.max_new_tokens,
                temperature=settings.temperature,
                top_p=settings.top_p,
            )
            shares = fake.model.distribution(
                prompt.token_ids, settings.temperature or 1.0, settings.top_p
            )
            group.append((tuple(ids), [math.log(shares[token]) for token in ids], reason))
        groups.append(group)
    return groups


def check(groups, wanted, *, source=IdsSource.SAMPLED, logprobs=True):
    for group, wanted_group in zip(groups, wanted, strict=True):
        for completion, (ids, values, reason) in zip(group, wanted_group, strict=True):
            assert completion.token_ids == ids
            assert completion.finish_reason == reason
            assert completion.ids_source is source
            if logprobs:
                assert completion.logprobs == pytest.approx(values, abs=1e-12)
            else:
                assert completion.logprobs is None


def asked(fake):
    """The requests for completions, those that find out the dialect aside."""
    return [body for body in fake.bodies if is_real(body)]


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


# --- trouble that passes


@pytest.mark.parametrize(
    "fault",
    [
        fails(500),
        fails(503, "<html>busy</html>"),
        fails(429, retry_after="0.05"),
        fails(429),
        breaks_off,
        answers("this is not JSON"),
        answers("[1, 2]"),
    ],
    ids=["500", "503", "429 with Retry-After", "429", "breaks off", "garbage", "a list"],
)
def test_trouble_that_passes_changes_nothing(fake, fault):
    fake.faults.extend([fault, fault])
    check(sampler_of(fake).sample(prompts(), settings_of()), expected(fake, settings_of()))
    assert not fake.faults


def test_a_request_that_hangs_is_sent_again(fake):
    fake.faults.append(hangs(0.8))
    sampler = sampler_of(fake, request_timeout=0.3)
    check(sampler.sample(prompts(), settings_of()), expected(fake, settings_of()))


def test_repetitions_end_and_the_last_trouble_is_told(fake):
    fake.faults.extend([fails(500, error("out of memory"))] * 50)
    with pytest.raises(ServerError, match=r"failed, 4 tries.*status 500: out of memory") as caught:
        sampler_of(fake).sample(prompts(), settings_of())
    assert isinstance(caught.value, PrerequisiteError)
    assert "--resume" in caught.value.hint


def test_a_timeout_advises_another_timeout(fake):
    fake.faults.extend([hangs(0.3)] * 8)
    with pytest.raises(ServerError, match=r"no answer within 0.1 s") as caught:
        sampler_of(fake, request_timeout=0.1, retries=1).sample(prompts()[:1], settings_of())
    assert "--request-timeout" in caught.value.hint


def test_a_limit_on_the_rate_is_kept_to_without_failures(fake):
    fake.per_second = 5
    many = [
        Prompt(prompt_id=f"q{place}", token_ids=TOKENIZER.encode("the ab")) for place in range(12)
    ]
    groups = sampler_of(fake, concurrency=8, retries=1).sample(many, settings_of())
    assert len(groups) == 12
    # 14 requests at 5 a second take two full seconds
    assert fake.times[-1] - fake.times[0] >= 1.9
    # one refusal closes the door for all: few requests are wasted
    assert fake.refused < 14


def test_a_server_that_asks_for_hours_ends_the_run(fake):
    fake.faults.append(fails(429, retry_after="7200"))
    with pytest.raises(ServerError, match="asks to wait 7,200 s"):
        sampler_of(fake).sample(prompts()[:1], settings_of())


def test_an_account_without_credit_is_not_asked_again(fake):
    fake.faults.append(
        fails(429, {"error": {"code": "insufficient_quota", "message": "no credit"}})
    )
    with pytest.raises(ServerError, match="no credit"):
        sampler_of(fake).sample(prompts()[:1], settings_of())
    assert len(asked(fake)) == 1


def test_retry_after_is_read_as_seconds_and_as_a_date():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after("3") == 3
    assert retry_after("Thu, 01 Jan 2026 00:00:09 GMT", now=now) == 9
    assert retry_after("Wed, 31 Dec 2025 00:00:00 GMT", now=now) == 0
    assert retry_after(None) is None
    assert retry_after("soon") is None


# --- trouble that stays


def test_no_server_says_what_was_tried_and_what_to_start():
    sampler = sampler_of(None, base_url="http://127.0.0.1:9/v1")
    with pytest.raises(ServerError, match=r"no server answers at http://127.0.0.1:9/v1") as caught:
        sampler.sample(prompts(), settings_of())
    assert "vllm serve" in caught.value.hint


def test_what_is_wrong_with_a_server_is_seen_by_a_check_before_sampling(fake):
    sampler_of(fake).check()
    for options in (
        {"base_url": "http://127.0.0.1:9/v1"},
        {"base_url": fake.url.removesuffix("/v1")},
        {"served_model": "other"},
    ):
        with pytest.raises(ServerError):
            sampler_of(fake, **options).check()
    fake.shows_models = False
    sampler_of(fake, served_model="fake").check()


def test_a_wrong_model_lists_what_is_served(fake):
    fake.name = "org/policy-7b"
    sampler = sampler_of(fake, served_model="policy-7b")
    with pytest.raises(ServerError, match="no model 'policy-7b'; it serves: org/policy-7b") as one:
        sampler.sample(prompts(), settings_of())
    assert one.value.hint == "did you mean --served-model org/policy-7b?"


def test_of_several_models_one_must_be_chosen(fake):
    fake.name = ["a", "b"]
    with pytest.raises(UsageError, match="serves 2 models: a, b"):
        sampler_of(fake).sample(prompts(), settings_of())


def test_a_server_that_lists_no_models_gets_the_name_that_was_given(fake):
    fake.shows_models = False
    sampler_of(fake, served_model="fake").sample(prompts(), settings_of())
    with pytest.raises(ServerError, match="/completions does not exist"):
        sampler_of(fake, served_model="other").sample(prompts(), settings_of())


def test_a_missing_key_and_a_wrong_one_are_told_apart(fake, monkeypatch):
    fake.key = "sk-right-one"
    with pytest.raises(ServerError, match="refused the key") as missing:
        sampler_of(fake).sample(prompts(), settings_of())
    assert "OPENAI_API_KEY, which is not set" in missing.value.hint
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-one")
    with pytest.raises(ServerError, match="refused the key") as wrong:
        sampler_of(fake).sample(prompts(), settings_of())
    assert "OPENAI_API_KEY, which is set" in wrong.value.hint
    # the server repeats the key in its answer; the error must not
    assert "sk-wrong" not in wrong.value.message + wrong.value.hint
    monkeypatch.setenv("OPENAI_API_KEY", "sk-right-one")
    check(sampler_of(fake).sample(prompts(), settings_of()), expected(fake, settings_of()))


def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(fake, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-geheim\nX")
    with pytest.raises(PrerequisiteError, match="OPENAI_API_KEY") as caught:
        sampler_of(fake)
    assert "geheim" not in caught.value.message + caught.value.hint


def test_a_path_without_v1_is_told(fake):
    with pytest.raises(ServerError, match="does not exist") as caught:
        sampler_of(fake, base_url=fake.url.removesuffix("/v1")).sample(prompts(), settings_of())
    assert caught.value.hint.endswith(f"--base-url {fake.url}")


def test_a_website_is_no_server(fake):
    fake.faults.append(answers("<!doctype html><html></html>", kind="text/html"))
    with pytest.raises(ServerError, match="web page"):
        sampler_of(fake).sample(prompts()[:1], settings_of())


def test_a_request_that_is_refused_is_told_in_the_servers_words(fake):
    fake.faults.append(fails(400, error("maximum context length is 8 tokens")))
    with pytest.raises(ServerError, match="maximum context length is 8") as caught:
        sampler_of(fake).sample(prompts()[:1], settings_of())
    assert "--max-new-tokens" in caught.value.hint
    assert len(asked(fake)) == 1


def test_completions_longer_than_the_server_takes_are_refused_beforehand(fake):
    fake.max_model_len = 10
    longest = max(len(one.token_ids) for one in prompts())
    with pytest.raises(UsageError, match="takes 10 tokens") as caught:
        sampler_of(fake).sample(prompts(), settings_of(max_new_tokens=10))
    assert f"--max-new-tokens {10 - longest}" in caught.value.hint
    assert asked(fake) == []


def test_a_redirection_names_the_other_address(fake):
    fake.faults.append(fails(308, "", location="https://elsewhere/v1/completions"))
    with pytest.raises(ServerError, match="points to https://elsewhere"):
        sampler_of(fake).sample(prompts()[:1], settings_of())


@pytest.mark.parametrize(
    "address",
    ["localhost:8000", "ftp://host/v1", "http://", "http://host:eight/v1", "", "http:///v1"],
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(UsageError, match="no address of a server"):
        sampler_of(None, base_url=address)


@pytest.mark.parametrize(
    "address",
    ["http://me:geheim@host/v1", "https://geheim@host/v1", "https://host/v1?key=geheim"],
)
def test_an_address_with_a_secret_is_refused_without_being_shown(address):
    with pytest.raises(UsageError, match="would be stored") as caught:
        sampler_of(None, base_url=address)
    assert "geheim" not in caught.value.message + caught.value.hint


def test_one_failure_ends_all_without_waiting_for_the_others(fake):
    fake.faults.extend([fails(400, error("bad")), hangs(3), hangs(3), hangs(3)])
    began = time.monotonic()
    with pytest.raises(ServerError, match="bad"):
        sampler_of(fake).sample(prompts(), settings_of())
    assert time.monotonic() - began < 2.5
    waiting = [one for one in threading.enumerate() if one.name == "thr-probe-request"]
    assert all(one.daemon for one in waiting)


def test_without_an_http_client_the_extra_is_named(fake, monkeypatch):
    monkeypatch.setattr(server_module, "LIBRARIES", ("no_such_client",))
    with pytest.raises(PrerequisiteError, match="httpx is not installed") as caught:
        sampler_of(fake)
    assert "thr_probe[api]" in caught.value.hint


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
    good = lambda handler: handler.answer(*fake.completion(fake.bodies[-1]))  # noqa: E731
    fake.faults.extend([good, fails(400, error("bad"))])
    sampler.expect(prompts(), settings_of())
    sampler.sample(prompts()[:1], settings_of())
    with pytest.raises(ServerError, match="bad"):
        sampler.sample(prompts()[1:2], settings_of())
    # and a later call begins anew
    check(sampler.sample(prompts(), settings_of()), expected(fake, settings_of()))

"""The sampler over a server that fails: trouble that passes, and trouble that stays."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

import pytest
from fake_server import answers, breaks_off, error, fails, hangs
from server_cases import (
    TOKENIZER,
    asked,
    check,
    expected,
    prompts,
    sampler_of,
    settings_of,
)

from thr_probe.errors import PrerequisiteError, UsageError
from thr_probe.sampling import Prompt
from thr_probe.sampling import server as server_module
from thr_probe.sampling.server_errors import ServerError, retry_after

pytestmark = pytest.mark.usefixtures("calm")


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
    [
        "localhost:8000",
        "ftp://host/v1",
        "http://",
        "http://host:eight/v1",
        "",
        "http:///v1",
        "http://[::1/v1",
    ],
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

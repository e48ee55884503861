"""One OpenAI-compatible server: requests, their repetition, a rate limit that is kept to."""

from __future__ import annotations

import importlib
import os
import random
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from thr_probe.errors import PrerequisiteError
from thr_probe.sampling.server_errors import (
    FailingError,
    RefusedError,
    ServerError,
    api_key,
    checked_address,
    explained,
    no_server,
    page_instead,
    retry_after,
    wording,
)

LIBRARIES = ("httpx", "httpx2")
"""Two packages of the same interface; the second comes with newer versions of huggingface_hub."""

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that another try may not meet."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before the first repetition, doubled each time, and the most."""

LONGEST_WAIT = 600.0
"""Seconds that a server may ask to wait for; beyond that the run ends and is resumed later."""

CONNECT_TIMEOUT = 10.0


class StoppedError(Exception):
    """Another request failed for good, or the user interrupted."""


def http_library() -> Any:
    """The HTTP client that is installed.

    Raises:
        PrerequisiteError: neither is.
    """
    for name in LIBRARIES:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
    raise PrerequisiteError(
        "--engine openai needs an HTTP client, and httpx is not installed",
        hint="pip install 'thr_probe[api]'",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A request that failed in a way that may pass."""

    message: str
    """What happened."""
    wait: float | None = None
    """Seconds that the server asked for."""
    is_limit: bool = False
    """Whether the server only asks for fewer requests."""


class Gate:
    """Lets so many requests through at once; fewer, and later, after the server said so.

    Half as many after each refusal, one more after as many successes as are let through.
    """

    def __init__(self, most: int) -> None:
        self.most, self.limit = most, float(most)
        self.running = self.passed = 0
        self.not_before = 0.0
        self.changed = threading.Condition()

    def enter(self, stop: threading.Event) -> None:
        """Wait for a place.

        Raises:
            StoppedError: nobody waits for the answer any more.
        """
        with self.changed:
            while not stop.is_set():
                early = self.not_before - time.monotonic()
                if early <= 0 and self.running < max(1, int(self.limit)):
                    self.running += 1
                    return
                # woken often enough to notice a stop
                self.changed.wait(min(early, 0.2) if early > 0 else 0.2)
        raise StoppedError

    def __enter__(self) -> None:
        """A place was given by `enter`."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the place back."""
        with self.changed:
            self.running -= 1
            self.changed.notify()

    def succeeded(self) -> None:
        """A request got through."""
        with self.changed:
            self.passed += 1
            self.limit = min(self.most, self.limit + 1 / max(1.0, self.limit))

    def refused(self, wait: float) -> None:
        """The server wants fewer requests: none for `wait` seconds, half as many then."""
        with self.changed:
            now = time.monotonic()
            if now >= self.not_before:  # refusals of the same moment count once
                self.limit = max(1.0, self.limit / 2)
            self.not_before = max(self.not_before, now + wait)


class Server:
    """An OpenAI-compatible server. The key comes from OPENAI_API_KEY and goes nowhere else.

    Args:
        base_url: up to and with `/v1`.
        concurrency: requests at once.
        retries: repetitions of a request that failed in a way that may pass.
        request_timeout: seconds that a request may take.

    Raises:
        UsageError: not an address, or one that holds a password.
        PrerequisiteError: no HTTP client is installed, a key that cannot be sent.
    """

    def __init__(
        self, base_url: str, *, concurrency: int, retries: int, request_timeout: float
    ) -> None:
        self.address = checked_address(base_url)
        self.key = api_key(os.environ)
        self.retries, self.request_timeout = retries, request_timeout
        self.library = http_library()
        self.client = self.library.Client(
            headers={"Authorization": f"Bearer {self.key}"} if self.key else {},
            timeout=self.library.Timeout(
                request_timeout, connect=min(CONNECT_TIMEOUT, request_timeout)
            ),
            limits=self.library.Limits(
                max_connections=concurrency, max_keepalive_connections=concurrency
            ),
        )
        weakref.finalize(self, self.client.close)
        self.gate = Gate(concurrency)
        self.jitter = random.Random()  # so that clients of one server do not march in step
        self.is_met = False

    def models(self) -> list[dict[str, Any]] | None:
        """The cards of the models that are served; None where the server does not say.

        Raises:
            ServerError: no server, a wrong key, or a web page.
        """
        try:
            answer = self.request("/models", retries=min(self.retries, 2))
        except FailingError:  # some list models with difficulty and serve them well
            return None
        except RefusedError as refusal:
            if refusal.status in {401, 403}:
                raise
            return None
        cards = answer.get("data")
        if not isinstance(cards, list):
            return None
        return [card for card in cards if isinstance(card, dict) and card.get("id")]

    def complete(
        self,
        body: Mapping[str, Any],
        *,
        stop: threading.Event | None = None,
    ) -> dict[str, Any]:
        """The answer to a completions request.

        Args:
            body: of the request.
            stop: set when nobody waits for the answer any more.

        Raises:
            RefusedError: the server does not take the request as it is.
            ServerError: it cannot be reached, or keeps failing.
            StoppedError: `stop` was set while waiting.
        """
        try:
            return self.request("/completions", body, stop=stop)
        except RefusedError as refusal:
            if refusal.status != 404:
                raise
            raise explained(self.address, str(body.get("model")), self._model_ids()) from refusal

    def request(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        stop: threading.Event | None = None,
        retries: int | None = None,
    ) -> dict[str, Any]:
        """Send a request (POST with a body, else GET) until it is answered.

        Raises:
            RefusedError, ServerError, StoppedError: as `complete`.
        """
        stop = stop or threading.Event()
        most = self.retries if retries is None else retries
        failures, began = 0, time.monotonic()
        while True:
            passed = self.gate.passed
            self.gate.enter(stop)
            with self.gate:
                found = self._attempt(path, body)
            if isinstance(found, dict):
                self.gate.succeeded()
                return found
            if found.is_limit and self.gate.passed > passed:
                failures = 0  # others got through: the server is busy, not broken
            failures += 1
            if failures > most:
                raise self._given_up(found, failures, time.monotonic() - began)
            self._pause(found, failures, stop)

    def _attempt(self, path: str, body: Mapping[str, Any] | None) -> dict[str, Any] | Trouble:
        library = self.library
        try:
            url = self.address + path
            response = self.client.get(url) if body is None else self.client.post(url, json=body)
        except (library.ConnectError, library.ConnectTimeout) as error:
            if not self.is_met:
                raise no_server(self.address, self._plain(str(error))) from error
            return Trouble(message=f"no connection: {self._plain(str(error))}")
        except library.TimeoutException:
            return Trouble(message=f"no answer within {self.request_timeout:g} s")
        except library.TransportError as error:
            detail = self._plain(str(error)) or type(error).__name__
            return Trouble(message=f"the connection broke: {detail}")
        self.is_met = True
        return self._read(response)

    def _read(self, response: Any) -> dict[str, Any] | Trouble:
        status, text = response.status_code, self._plain(response.text[:2000])
        if status in PASSING and not text_says_final(text):
            return Trouble(
                message=f"status {status}: {wording(text)}",
                wait=retry_after(response.headers.get("retry-after")),
                is_limit=status == 429,
            )
        if status >= 300:
            raise RefusedError.of(
                status, text, self.address, has_key=bool(self.key), headers=response.headers
            )
        try:
            answer = response.json()
        except ValueError:
            if "html" in response.headers.get("content-type", "") or text.lstrip().startswith("<"):
                raise page_instead(self.address) from None
            return Trouble(message=f"an answer that is not JSON: {text[:100]!r}")
        if not isinstance(answer, dict):
            return Trouble(message=f"an answer that is no JSON object: {text[:100]!r}")
        return answer

    def _pause(self, trouble: Trouble, failures: int, stop: threading.Event) -> None:
        """Wait before the next try, as long as was asked for or doubling, a little at random."""
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (failures - 1))
        if trouble.wait is not None and trouble.wait > LONGEST_WAIT:
            raise ServerError(
                f"{self.address} asks to wait {trouble.wait:,.0f} s ({trouble.message})",
                hint="come back later: what is finished is kept",
            )
        wait = pause if trouble.wait is None else trouble.wait
        wait *= 1 + 0.25 * self.jitter.random()
        if trouble.is_limit:
            self.gate.refused(wait)
        elif stop.wait(wait):
            raise StoppedError

    def _given_up(self, trouble: Trouble, tries: int, seconds: float) -> FailingError:
        often = f"{tries} tries in {seconds:.0f} s" if tries > 1 else "1 try"
        longer = "no answer" in trouble.message
        return FailingError(
            f"{self.address} failed, {often}: {trouble.message}",
            hint="raise --request-timeout, or lower --concurrency or --max-new-tokens"
            if longer
            else "see the server's log; once it answers again, go on with --resume",
        )

    def _model_ids(self) -> list[str] | None:
        try:
            cards = self.models()
        except ServerError:
            return None
        return None if cards is None else [str(card["id"]) for card in cards]

    def _plain(self, text: str) -> str:
        """What a server or library said, without the key."""
        return text.replace(self.key, "***") if self.key else text


def text_says_final(text: str) -> bool:
    """Whether a status that may pass will not: an account without credit."""
    return "insufficient_quota" in text

"""What goes wrong with servers, in sentences; addresses and keys that cannot be."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from thr_probe.errors import PrerequisiteError, UsageError

KEY_VARIABLE = "OPENAI_API_KEY"

START_HINT = (
    "start one, for instance `vllm serve MODEL --port 8000`, and give its address: "
    "--base-url http://HOST:8000/v1"
)


class ServerError(PrerequisiteError):
    """The server cannot be reached, keeps failing, or is not what it should be."""


class FailingError(ServerError):
    """It failed again and again."""


class RefusedError(ServerError):
    """The server does not take a request; repeating it would not help."""

    def __init__(self, message: str, hint: str | None = None, *, status: int = 0) -> None:
        super().__init__(message, hint)
        self.status = status

    @classmethod
    def of(
        cls, status: int, text: str, address: str, *, has_key: bool, headers: Mapping[str, str]
    ) -> RefusedError:
        """The sentence for a status other than success."""
        said = wording(text)
        if status in {401, 403}:
            read = "is set, and was sent" if has_key else "is not set"
            return cls(
                f"{address} refused the key (status {status}): {said}",
                f"the key is read from {KEY_VARIABLE}, which {read}",
                status=status,
            )
        if 300 <= status < 400:
            place = headers.get("location", "elsewhere")
            return cls(
                f"{address} points to {place} (status {status})",
                "give the final address to --base-url",
                status=status,
            )
        return cls(
            f"{address} refused the request (status {status}): {said}",
            _refusal_hint(status, text),
            status=status,
        )


def _refusal_hint(status: int, text: str) -> str | None:
    if "context length" in text or "max_model_len" in text or "maximum context" in text:
        return "lower --max-new-tokens, or start the server with a longer --max-model-len"
    if status in {402, 429}:
        return "see the account of this key"
    return None


def explained(address: str, model: str, known: Sequence[str] | None) -> ServerError:
    """A 404: the wrong model, or the wrong path."""
    if known is not None and model not in known:
        return wrong_model(address, model, known)
    return RefusedError(
        f"{address}/completions does not exist (status 404)",
        path_hint(address) or "the server must speak OpenAI's completions (not only chat)",
        status=404,
    )


def wrong_model(address: str, model: str, known: Sequence[str]) -> ServerError:
    """A model that is not served: which are, and the closest of them."""
    close = difflib.get_close_matches(model, known, n=1, cutoff=0.4)
    served = ", ".join(known) or "nothing"
    guess = f"did you mean --served-model {close[0]}?" if close else "choose with --served-model"
    return RefusedError(
        f"{address} serves no model {model!r}; it serves: {served}", guess, status=404
    )


def page_instead(address: str) -> ServerError:
    """A web page where JSON was expected."""
    return ServerError(
        f"{address} answers with a web page, not with JSON",
        path_hint(address) or "this is the address of a website, not of a model server",
    )


def no_server(address: str, reason: str) -> ServerError:
    """Nothing listens there."""
    return ServerError(f"no server answers at {address}: {reason}", START_HINT)


def path_hint(address: str) -> str | None:
    """The address with /v1, where it ends otherwise."""
    if address.endswith("/v1"):
        return None
    return f"addresses of this kind end in /v1: --base-url {address}/v1"


def wording(text: str) -> str:
    """What a server says went wrong: the message in its JSON, else the beginning of its text."""
    try:
        found: Any = json.loads(text)
    except ValueError:
        return _short(re.sub(r"<[^>]*>", " ", text)) or "no reason given"
    for name in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(name):
            found = found[name]
    return _short(found if isinstance(found, str) else json.dumps(found, ensure_ascii=False))


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= 300 else plain[:297] + "..."


def retry_after(value: str | None, *, now: datetime | None = None) -> float | None:
    """Seconds of a Retry-After header, given as a number or as a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())


def checked_address(base_url: str) -> str:
    """An address without a slash at its end.

    Raises:
        UsageError: not http(s)://host, or one that holds a password or a query.
    """
    try:
        parts = urlsplit(base_url.strip())
    except ValueError as error:  # a bracket that does not close
        raise UsageError(
            "--base-url is no address of a server", hint="give it as http://HOST:PORT/v1"
        ) from error
    # the address is stored in the run: it must hold no secret, and the error must not either
    if "@" in parts.netloc or "@" in base_url.partition("//")[2].partition("/")[0]:
        raise UsageError(
            "--base-url holds a user name or password, which would be stored with the run",
            hint=f"leave it out; a key is read from {KEY_VARIABLE}",
        )
    if parts.query or parts.fragment:
        raise UsageError(
            "--base-url has a part behind ? or #, which would be stored with the run",
            hint="give the address up to /v1",
        )
    if parts.scheme not in {"http", "https"} or not _host(base_url):
        raise UsageError(
            f"--base-url {base_url!r} is no address of a server",
            hint="give it as http://HOST:PORT/v1",
        )
    return base_url.strip().rstrip("/")


def _host(base_url: str) -> str | None:
    parts = urlsplit(base_url.strip())
    try:
        _ = parts.port
    except ValueError:
        return None
    return parts.hostname


def api_key(environment: Mapping[str, str]) -> str:
    """The key, or nothing.

    Raises:
        PrerequisiteError: characters that no header can carry.
    """
    key = environment.get(KEY_VARIABLE, "").strip()
    if not re.fullmatch(r"[\x21-\x7e]*", key):
        raise PrerequisiteError(
            f"{KEY_VARIABLE} holds characters that no key has (spaces, line breaks, accents)",
            hint="set it again, without them",
        )
    return key

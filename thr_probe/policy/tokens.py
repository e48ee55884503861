"""Tokenizers: digest, and what single tokens stand for."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from thr_probe.errors import DataError

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class TokenRow(NamedTuple):
    """One row of tokens.parquet."""

    token_id: int
    """Id in the policy's vocabulary."""
    bytes: bytes
    """What the token adds to the text; empty for ids the tokenizer does not know."""
    text: str
    """The bytes as text; those that are not UTF-8 by themselves as \\xNN; `<id N>` for unknown."""


def _serialised(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The tokenizer's whole state; a slow one is known by its class and vocabulary."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return {"class": type(tokenizer).__name__, "vocab": tokenizer.get_vocab()}
    state: dict[str, Any] = json.loads(backend.to_str())
    # set by the last call, not part of what the tokenizer is
    state.pop("padding", None)
    state.pop("truncation", None)
    return state


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 of the tokenizer's serialised state and its special tokens."""
    state = {
        "tokenizer": _serialised(tokenizer),
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
    }
    canonical = json.dumps(state, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def byte_alphabet() -> dict[str, int]:
    """The printable stand-in of each byte in byte-level BPE vocabularies (GPT-2), inverted."""
    kept = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in set(kept)]
    return {chr(byte): byte for byte in kept} | {
        chr(256 + place): byte for place, byte in enumerate(moved)
    }


def token_rows(tokenizer: PreTrainedTokenizerBase, ids: Iterable[int]) -> list[TokenRow]:
    """Bytes and text of each id, for byte-level BPE, SentencePiece-like and other tokenizers.

    Joining the bytes of a completion's tokens gives the completion's text, but for tokenizers that
    clean up spaces while decoding.
    """
    added = {
        int(token_id): str(token) for token_id, token in tokenizer.added_tokens_decoder.items()
    }
    to_bytes = _piece_reader(tokenizer)
    rows = []
    wanted = [int(token_id) for token_id in ids]
    for token_id, piece in zip(wanted, tokenizer.convert_ids_to_tokens(wanted), strict=True):
        if not piece:
            rows.append(TokenRow(token_id, b"", f"<id {token_id}>"))
            continue
        raw = added[token_id].encode() if token_id in added else to_bytes(piece, token_id)
        rows.append(TokenRow(token_id, raw, raw.decode(errors="backslashreplace")))
    return rows


def _piece_reader(tokenizer: PreTrainedTokenizerBase) -> Callable[[str, int], bytes]:
    """How this tokenizer's vocabulary entries spell bytes, told from its decoder."""
    decoder = json.dumps(_serialised(tokenizer).get("decoder") or {}, ensure_ascii=False)
    if '"ByteLevel"' in decoder:
        alphabet = byte_alphabet()
        return lambda piece, _token_id: bytes(alphabet[char] for char in piece)
    if "\u2581" in decoder:
        return lambda piece, _token_id: _sentencepiece_bytes(piece)
    return lambda _piece, token_id: decode(
        tokenizer, [token_id], skip_special_tokens=False
    ).encode()


def _sentencepiece_bytes(piece: str) -> bytes:
    match = BYTE_TOKEN.fullmatch(piece)
    return bytes([int(match.group(1), 16)]) if match else piece.replace("\u2581", " ").encode()


def decode(
    tokenizer: PreTrainedTokenizerBase, ids: Iterable[int], *, skip_special_tokens: bool = True
) -> str:
    """The text of some ids, spaces left as they are."""
    text = tokenizer.decode(
        list(ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
    )
    return text if isinstance(text, str) else "".join(text)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of a prompt; a beginning-of-sequence token that the text already spells is not doubled.

    Raises:
        DataError: no token comes out; then nothing predicts the first completion token.
    """
    bos = tokenizer.bos_token
    spelled = isinstance(bos, str) and text.startswith(bos)
    ids = [int(token_id) for token_id in tokenizer.encode(text, add_special_tokens=not spelled)]
    if not ids:
        raise DataError(f"the prompt {text[:60]!r} has no token")
    return ids

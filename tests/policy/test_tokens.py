"""Digest, bytes and text of tokens, prompts."""

from __future__ import annotations

import pytest
from tiny_models import byte_tokenizer
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE, WordLevel
from transformers import PreTrainedTokenizerFast

from thr_probe.errors import DataError
from thr_probe.policy.tokens import decode, encode_prompt, token_rows, tokenizer_digest

TEXT = "the caf\u00e9 \u6570 a\nthe \U0001f600 end"


def sentencepiece_tokenizer():
    """The shape of Llama 2's and Gemma's: a marker for spaces, bytes as <0xNN>."""
    words = ["<unk>", "</s>", "\u2581", "\u2581the", "t", "h", "e", "a", "\u2581a"]
    vocab = {word: number for number, word in enumerate(words)}
    vocab |= {f"<0x{byte:02X}>": len(words) + byte for byte in range(256)}
    merges = [("\u2581", "a")]
    tokenizer = Tokenizer(BPE(vocab, merges, byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


@pytest.mark.parametrize("make", [byte_tokenizer, sentencepiece_tokenizer])
def test_the_bytes_of_a_texts_tokens_join_to_the_text(make):
    tokenizer = make()
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    rows = token_rows(tokenizer, ids)
    assert [row.token_id for row in rows] == ids
    assert b"".join(row.bytes for row in rows).decode() == TEXT
    assert decode(tokenizer, ids) == TEXT


def test_text_is_readable_and_bytes_that_are_no_character_are_escaped():
    tokenizer = byte_tokenizer()
    ids = tokenizer.encode("the \u6570", add_special_tokens=False)
    assert [row.text for row in token_rows(tokenizer, ids)] == [
        "t", "he", " ", "\\xe6", "\\x95", "\\xb0",
    ]  # fmt: skip
    assert token_rows(tokenizer, tokenizer.encode(" the"))[0].text == " the"


def test_special_tokens_stand_for_themselves_and_unknown_ids_for_nothing():
    tokenizer = byte_tokenizer()
    eos, unknown = token_rows(tokenizer, [1, 100_000])
    assert (eos.bytes, eos.text) == (b"<eos>", "<eos>")
    assert (unknown.bytes, unknown.text) == (b"", "<id 100000>")


def test_other_tokenizers_give_what_they_decode():
    words = Tokenizer(WordLevel({"<unk>": 0, "caf\u00e9": 1, "</s>": 2}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>")
    (row,) = token_rows(tokenizer, [1])
    assert (row.bytes, row.text) == ("caf\u00e9".encode(), "caf\u00e9")


def test_the_digest_sees_the_vocabulary_and_special_tokens_but_not_the_last_call():
    digest = tokenizer_digest(byte_tokenizer())
    assert len(digest) == 64
    used = byte_tokenizer()
    used(["a", "a long text"], padding=True, truncation=True, max_length=3)
    assert tokenizer_digest(used) == digest
    longer = byte_tokenizer()
    longer.add_tokens(["new"])
    renamed = byte_tokenizer()
    renamed.eos_token = "<pad>"
    assert len({digest, tokenizer_digest(longer), tokenizer_digest(renamed)}) == 3


def test_a_beginning_of_sequence_token_that_the_prompt_spells_is_not_doubled():
    tokenizer = byte_tokenizer()
    plain = tokenizer.encode("ab", add_special_tokens=False)
    assert encode_prompt(tokenizer, "ab") == tokenizer.encode("ab")
    assert encode_prompt(tokenizer, "<bos>ab") == [2, *plain]


def test_a_prompt_without_a_token_is_an_error():
    with pytest.raises(DataError, match="has no token"):
        encode_prompt(byte_tokenizer(), "")

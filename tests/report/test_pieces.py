from __future__ import annotations

import random

import pytest

from thr_probe.report.tokens.pieces import display_pieces, printable, visible


def shown(token_bytes):
    return [(piece.text, piece.first, piece.num_tokens) for piece in display_pieces(token_bytes)]


def covered(pieces):
    return [piece.first + k for piece in pieces for k in range(piece.num_tokens)]


@pytest.mark.parametrize(
    ("token_bytes", "expected"),
    [
        ([], []),
        ([b"so", b" what"], [("so", 0, 1), (" what", 1, 1)]),
        ([b"\xf0\x9f", b"\x98\x80", b"!"], [("😀", 0, 2), ("!", 2, 1)]),
        ([b"\xf0", b"\x9f", b"\x98", b"\x80"], [("😀", 0, 4)]),
        ([b"a\xe2", b"\x82\xacb"], [("a€b", 0, 2)]),
        # a second character begins in the token that ends the first
        ([b"\xe2\x82", b"\xac\xe2", b"\x82\xac"], [("€€", 0, 3)]),
        ([b"\xe2\x82", b"b", b"c"], [("\\xe2\\x82", 0, 1), ("b", 1, 1), ("c", 2, 1)]),
        ([b"\x80", b"b"], [("\\x80", 0, 1), ("b", 1, 1)]),
        ([b"\xe2", b"\xe2\x82\xac"], [("\\xe2", 0, 1), ("€", 1, 1)]),
        ([b"a", b"\xe2\x82"], [("a", 0, 1), ("\\xe2\\x82", 1, 1)]),
        ([b"", b"a"], [("", 0, 1), ("a", 1, 1)]),
        ([b"\xe2\x82", b"", b"\xac"], [("€", 0, 3)]),
        # surrogates are not characters of UTF-8
        ([b"\xed\xa0\x80"], [("\\xed\\xa0\\x80", 0, 1)]),
        ([b"\x1b[31m"], [("\\x1b[31m", 0, 1)]),
    ],
)
def test_pieces_are_whole_characters(token_bytes, expected):
    assert shown(token_bytes) == expected


def test_every_token_is_in_exactly_one_piece_and_valid_text_comes_back_whole():
    rng = random.Random(0)
    for _ in range(300):
        text = "".join(rng.choice("aé€😀 \n語") for _ in range(12))
        data = text.encode()
        cuts = sorted(rng.sample(range(1, len(data)), k=min(8, len(data) - 1)))
        tokens = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        pieces = display_pieces(tokens)
        assert "".join(piece.text for piece in pieces) == text
        covered = [
            k for piece in pieces for k in range(piece.first, piece.first + piece.num_tokens)
        ]
        assert covered == list(range(len(tokens)))


def test_random_bytes_are_shown_as_python_escapes_them_and_cover_every_token():
    rng = random.Random(1)
    for _ in range(300):
        tokens = [rng.randbytes(rng.randint(0, 3)) for _ in range(10)]
        pieces = display_pieces(tokens)
        covered = [
            k for piece in pieces for k in range(piece.first, piece.first + piece.num_tokens)
        ]
        assert covered == list(range(10))
        whole = b"".join(tokens).decode(errors="backslashreplace")
        assert "".join(piece.text for piece in pieces) == printable(whole)


def test_what_would_act_is_escaped_and_letters_of_any_script_stay():
    assert printable("a\r\x00\x85b") == "a\\x0d\\x00\\x85b"
    assert printable("\u202eabc\u2028") == "\\u202eabc\\u2028"
    assert printable("שלום ‍ x²\n\t") == "שלום ‍ x²\n\t"


def test_white_space_is_made_visible():
    assert visible(" a\n\tb\u00a0") == "·a⏎⇥b⍽"
    assert visible("a\nb", keep_breaks=True) == "a⏎\nb"

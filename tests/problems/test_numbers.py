"""Numbers read from their many spellings, against the decimal module and fractions."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from thr_probe.problems.equivalence import same_answer
from thr_probe.problems.normalise import comparison_key, normalise
from thr_probe.problems.numbers import read_numeral

DECIMALS = st.decimals(
    min_value=-(10**9), max_value=10**9, allow_nan=False, allow_infinity=False, places=4
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(DECIMALS, st.integers(-20, 20))
def test_decimal_scientific_and_grouped_spellings_have_the_value_python_gives(
    number: Decimal, exponent: int
) -> None:
    scaled = Fraction(number) * Fraction(10) ** exponent
    for text, value in (
        (f"{number:f}", Fraction(number)),
        (f"{number:,f}", Fraction(number)),
        (f"{number:f}e{exponent}", scaled),
        (rf"{number:f} \times 10^{{{exponent}}}", scaled),
    ):
        numeral = read_numeral(text)
        assert numeral is not None
        assert numeral.value == value
        assert numeral.literal


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(-999, 999), st.integers(1, 999))
def test_fractions_equal_their_value_however_written(top: int, bottom: int) -> None:
    value = Fraction(top, bottom)
    spellings = [
        f"{top}/{bottom}",
        rf"\frac{{{top}}}{{{bottom}}}",
        rf"$\dfrac{{{top}}}{{{bottom}}}$",
        str(value),
    ]
    for spelling in spellings:
        numeral = read_numeral(normalise(spelling))
        assert numeral is not None
        assert numeral.value == value
        assert same_answer(str(value), spelling)
    assert not same_answer(str(value), str(value + Fraction(1, 999)))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(alphabet="0123456789.,-+/^{}()[]\\ $%frac sqrtpie=xy", max_size=60))
def test_any_text_is_normalised_once_and_for_all_and_is_read_or_not(text: str) -> None:
    once = normalise(text)
    assert comparison_key(normalise(once)) == comparison_key(normalise(normalise(once)))
    numeral = read_numeral(once)
    assert numeral is None or isinstance(numeral.value, Fraction)


def test_powers_of_ten_beyond_reason_are_left_alone() -> None:
    assert read_numeral("1e999999999") is None
    assert read_numeral("1e5000") is None
    assert read_numeral("9" * 2000) is None
    assert read_numeral("1/0") is None

"""Answers that are plain numbers: read exactly, compared exactly, with units and percent signs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_EXPONENT = 1000
"""Larger powers of ten are left to the worker and its limit."""
MIN_DIGITS = 4
"""Digits a decimal gold must show before an exact value may match it within its last place."""

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+(?!\d)|\d+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d*)?|\.\d+)"
_PLAIN = re.compile(rf"([-+]?)\s*({_DECIMAL})")
_SCIENTIFIC = re.compile(
    rf"([-+]?)\s*({_DECIMAL})\s*(?:[eE]|(?:\\times|\\cdot|\*|x|X)\s*10\s*\^)"
    r"\s*\{?\s*([-+]?\s*\d{1,6})\s*\}?"
)
_POWER = re.compile(r"([-+]?)\s*10\s*\^\s*\{?\s*([-+]?\s*\d{1,6})\s*\}?")
_RATIO = re.compile(
    rf"([-+]?)\s*(?:\\frac\s*\{{\s*([-+]?\s*{_DECIMAL})\s*\}}\s*\{{\s*([-+]?\s*{_DECIMAL})\s*\}}"
    rf"|({_DECIMAL})\s*/\s*\(?([-+]?\s*{_DECIMAL})\)?)"
)
_REPEATING = re.compile(r"([-+]?)\s*(\d*)\.(\d*)\\(?:overline|bar)\s*\{(\d+)\}")
_MIXED = re.compile(r"([-+]?)\s*(\d+)(?:\s*\\frac\s*\{(\d+)\}\s*\{(\d+)\}|\s+(\d+)/(\d+))")
_BASED = re.compile(r"([0-9A-Za-z]{1,64})_\{?(\d{1,2})\}?")

_SYNONYMS = """
m meter meters metre metres; cm centimeter centimeters centimetre centimetres; ft foot feet;
mm millimeter millimeters millimetre millimetres; km kilometer kilometers kilometre kilometres;
in inch inches; mi mile miles; yd yard yards; s sec secs second seconds; min mins minute minutes;
h hr hrs hour hours; day days; week weeks; month months; yr yrs year years; g gram grams;
kg kilogram kilograms; mg milligram milligrams; lb lbs pound pounds; oz ounce ounces;
L l liter liters litre litres; mL ml; N newton newtons Newton Newtons; J joule joules Joule Joules;
W watt watts; V volt volts; K kelvin Kelvin; Hz hertz; Pa pascal; eV; mol mole moles; mph;
dollar dollars USD usd; cent cents; unit units; rad radian radians;
kW; kWh; MW; kJ; kN; kPa; kHz; MHz; mA; ms; nm; dB; Mb; MB; Gb; GB; kB KB; TB; am; pm; per
"""
_UNITS = {
    word: group.split()[0] for group in _SYNONYMS.strip().split(";") for word in group.split()
}
_NO_UNIT = frozenset(
    {"and", "or", "pi", "sin", "cos", "tan", "log", "exp", "sqrt", "not", "than", "mod", "base"}
    | {"for", "but", "inf", "infty", "infinity"}
)
_UNIT_TOKEN = re.compile(r"\s*(?:([A-Za-z]+)|\^ ?\{?-?\d+\}?|/|\\cdot|\.)")
_PREFIXED = re.compile(r"(?:USD|US|Rs\.?|EUR)\s*(.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Numeral:
    """A number as an answer writes it."""

    value: Fraction
    """Its exact value, the percent sign apart."""
    literal: bool
    """Written in digits (12, 0.5, 3e8), not as a fraction."""
    digits: int
    """Digits shown behind the first that is not zero; 0 for fractions."""
    ulp: Fraction
    """Value of one unit in the last place shown; 0 for fractions."""
    percent: bool = False
    """Carries a percent sign."""
    unit: str = ""
    """Unit or counted things behind it."""
    base: str = ""
    """Subscript of a numeral in another base."""


def read_numeral(text: str) -> Numeral | None:
    r"""The number a normalised answer consists of, or None.

    >>> [str(read_numeral(text).value) for text in (r"1.5 \times 10^{3}", "-3/4", "2 m/s")]
    ['1500', '-3/4', '2']
    >>> read_numeral("2x") is None
    True
    """
    if len(text) > 1000 or not any(char.isdigit() for char in text):
        return None
    plain = _read_plain(text)
    return plain if plain is not None else _read_dressed(text)


def numerals_equal(gold: Numeral, other: Numeral) -> bool:
    """Whether two numbers are the same answer.

    A percent sign may stand for a hundredth or be left out; units may be left out but not differ;
    two literals agree exactly (save rounding noise past the ninth digit); a fraction agrees with
    its decimal to six digits, or within the last place of a gold that shows at least four.
    """
    if gold.unit and other.unit and units_differ(gold.unit, other.unit):
        return False
    if gold.base or other.base:
        return _based_equal(gold, other)
    if values_equal(gold, other.value, other_literal=other.literal):
        return True
    if gold.percent == other.percent:
        return False
    hundredth = Fraction(1, 100) if other.percent else Fraction(100)
    return values_equal(gold, other.value * hundredth, other_literal=other.literal)


def values_equal(gold: Numeral, other: Fraction, *, other_literal: bool) -> bool:
    """Equality of values under the tolerance of `numerals_equal`."""
    gap = abs(gold.value - other)
    if gap == 0:
        return True
    both_whole = gold.value.denominator == 1 and other.denominator == 1
    if both_whole:
        return False
    size = max(abs(gold.value), abs(other))
    if gold.literal and other_literal:
        return gap <= size * Fraction(1, 10**9)
    if _whole_literal(gold) or (other_literal and other.denominator == 1):
        return False
    return gap <= size * Fraction(1, 10**6) or within_last_place(gold, gap)


def within_last_place(gold: Numeral, gap: Fraction) -> bool:
    """Whether a gap is below the last place of a gold that is a decimal of at least four digits."""
    return gold.literal and gold.ulp < 1 and gold.digits >= MIN_DIGITS and gap < gold.ulp


def units_differ(gold: str, other: str) -> bool:
    """Whether two units are known word for word and not the same; unknown words settle nothing."""
    names = [
        [_UNITS.get(word) for word in re.findall(r"[A-Za-z]+", unit)] for unit in (gold, other)
    ]
    return None not in names[0] + names[1] and names[0] != names[1]


def _whole_literal(numeral: Numeral) -> bool:
    return numeral.literal and numeral.value.denominator == 1 and numeral.ulp >= 1


def _based_equal(gold: Numeral, other: Numeral) -> bool:
    """Numerals of other bases: equal digits, the base left out at most once."""
    if gold.base and other.base and gold.base != other.base:
        return False
    return gold.value == other.value


def _read_plain(text: str) -> Numeral | None:
    for reader in (_literal, _ratio, _mixed, _repeating):
        numeral = reader(text)
        if numeral is not None:
            return numeral
    return None


def _read_dressed(text: str) -> Numeral | None:
    """A number with a percent sign, a unit, a currency word or a base around it."""
    if text.endswith("%"):
        return _with(_read_plain(text[:-1].strip()), percent=True)
    based = _BASED.fullmatch(text)
    if based and based[1].isdigit():
        return _with(_literal(based[1]), base=based[2])
    prefixed = _PREFIXED.fullmatch(text)
    if prefixed:
        return _with(_read_plain(prefixed[1]), unit="USD")
    return _with_unit(text)


def _with_unit(text: str) -> Numeral | None:
    """A number and behind it a unit or counted things: 3 m/s^2, 125 miles, 5 red apples."""
    starts = (pattern.match(text) for pattern in (_SCIENTIFIC, _RATIO, _MIXED, _PLAIN))
    end = max((match.end() for match in starts if match), default=0)
    unit = text[end:]
    if not end or not unit.strip() or not _is_unit(unit):
        return None
    return _with(_read_plain(text[:end].strip()), unit=unit.strip())


def _is_unit(text: str) -> bool:
    """Known units, or longer words that stand apart and are no mathematics.

    Letters side by side ("2 m g") are a product, not a unit, unless a slash or power shows it.
    """
    words = []
    position = 0
    while position < len(text):
        token = _UNIT_TOKEN.match(text, position)
        if token is None:
            return False
        if token[1]:
            if token[1] not in _UNITS and not _is_counted(token[1], text[position]):
                return False
            words.append(token[1])
        position = token.end()
    singles = sum(len(word) == 1 for word in words)
    return 0 < len(words) <= 8 and (singles <= 1 or "/" in text or "^" in text)


def _is_counted(word: str, before: str) -> bool:
    return len(word) > 2 and before == " " and word.lower() not in _NO_UNIT


def _with(
    numeral: Numeral | None, *, percent: bool = False, unit: str = "", base: str = ""
) -> Numeral | None:
    if numeral is None:
        return None
    return Numeral(
        value=numeral.value,
        literal=numeral.literal,
        digits=numeral.digits,
        ulp=numeral.ulp,
        percent=percent,
        unit=unit,
        base=base,
    )


def _literal(text: str) -> Numeral | None:
    match = _PLAIN.fullmatch(text)
    if match:
        return _shown(match[1], match[2], 0)
    match = _SCIENTIFIC.fullmatch(text)
    if match:
        return _shown(match[1], match[2], int(match[3].replace(" ", "")))
    match = _POWER.fullmatch(text)
    if match:
        return _shown(match[1], "1", int(match[2].replace(" ", "")))
    return None


def _shown(sign: str, digits: str, exponent: int) -> Numeral | None:
    if abs(exponent) > MAX_EXPONENT:
        return None
    digits = digits.replace(",", "").replace(" ", "")
    whole, _, decimals = digits.partition(".")
    ulp = Fraction(10) ** (exponent - len(decimals))
    value = int(whole + decimals or "0") * ulp
    return Numeral(
        value=-value if sign == "-" else value,
        literal=True,
        digits=len((whole + decimals).lstrip("0")),
        ulp=ulp,
    )


def _ratio(text: str) -> Numeral | None:
    match = _RATIO.fullmatch(text)
    if not match:
        return None
    top = _decimal(match[2] or match[4])
    bottom = _decimal(match[3] or match[5])
    return None if bottom == 0 else _fraction(match[1], top / bottom)


def _mixed(text: str) -> Numeral | None:
    match = _MIXED.fullmatch(text)
    if not match:
        return None
    top, bottom = int(match[3] or match[5]), int(match[4] or match[6])
    if top >= bottom:  # no mixed number is written so: a product perhaps
        return None
    return _fraction(match[1], int(match[2]) + Fraction(top, bottom))


def _repeating(text: str) -> Numeral | None:
    match = _REPEATING.fullmatch(text)
    if not match:
        return None
    sign, whole, fixed, period = match.groups()
    shift = 10 ** len(fixed)
    tail = Fraction(int(period), shift * (10 ** len(period) - 1))
    return _fraction(sign, Fraction(int(whole + fixed or "0"), shift) + tail)


def _fraction(sign: str, value: Fraction) -> Numeral:
    signed = -value if sign == "-" else value
    return Numeral(value=signed, literal=False, digits=0, ulp=Fraction(0))


def _decimal(text: str) -> Fraction:
    cleaned = text.replace(" ", "").replace(",", "")
    return Fraction(cleaned.rstrip(".") or "0")

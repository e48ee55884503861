"""What counts as the same answer, what does not, and what a verdict says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from thr_probe.problems import MathVerifier, Verdict, VerifyStatus

RIGHT = [
    # numbers
    ("1000", "10^3"),
    ("1234", "1,234"),
    ("1234", "1 234"),
    ("10000", "10{,}000"),
    ("11100", r"11,\!100"),
    ("7", "07"),
    ("7", "7."),
    ("0.5", ".5"),
    ("2", "2.0"),
    ("100", "1e2"),
    ("0", "-0"),
    ("5", r"\approx 5"),
    ("2.64e-9", r"2.64 \times 10^{-9}"),
    ("3e8", r"3 \cdot 10^8"),
    ("4.5", r"4\frac{1}{2}"),
    ("1/2", r"\frac{2}{4}"),
    ("-1/2", r"\frac{-1}{2}"),
    ("-2./7", r"-\frac27"),
    ("0.6", r"\frac{3}{5}"),
    ("1/3", "0.333333"),
    (r"\frac13", r"0.\overline{3}"),
    ("1000.99", "1000,99"),
    ("3.1416", r"\pi"),
    ("94.248", r"30\pi"),
    (r"\pi", "3.14159265"),
    ("3142_5", "3142_{5}"),
    ("3:4", r"\frac{3}{4}"),
    # percent, degrees, currency, units
    ("50\\%", "50"),
    ("50\\%", "0.5"),
    ("0.6", "60%"),
    ("10", "10\\%"),
    ("28\\%", "28 percent"),
    ("90^\\circ", "90"),
    ("36.6", "36.6^{\\circ}"),
    ("45", "45 degrees"),
    ("850", r"850^\circ \mathrm{C}"),
    ("\\$10", "10"),
    ("3150", r"\text{Total saved} = \$3,150"),
    ("18", r"18 \text{ dollars}"),
    ("5", "5€"),
    ("5 cm", "5"),
    ("15\\mbox{ cm}^2", r"15 \text{ square cm}"),
    ("0.75N", "0.7500 N"),
    ("12", r"12\text{ red apples}"),
    ("2300", r"2300 \text{ kJ m}^{-2} \text{s}^{-1}"),
    ("9", r"9^{\text{th}} \text{ day}"),
    ("7", r"7 \pmod{9}"),
    # expressions
    ("x^2+1", "1 + x^{2}"),
    ("(x+1)^2", "x^2+2x+1"),
    (r"\frac{x+2}{7}", r"\dfrac{x}{7}+\dfrac27"),
    (r"3\sqrt{2}", r"\sqrt{18}"),
    (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt2}"),
    (r"\sqrt{3}/2", "sqrt(3)/2"),
    ("2^{10}", "1024"),
    ("10!", "3628800"),
    (r"\sin^2 x", r"1-\cos^2 x"),
    ("8\\pi", "8pi"),
    (r"R_{\odot}/2", r"\frac{R_\odot}{2}"),
    (r"e^{\frac{-h}{k_{\mathrm{B}} T}}", r"e^{-h/(k_B T)}"),
    (r"\\frac{2}{3}", r"\frac23"),
    ("x^{\\prime}+1", "x'+1"),
    # equations, assignments, inequalities
    ("5", "x = 5"),
    ("y=2x", "2x"),
    ("f(x)=x+1", "x+1"),
    ("(p,q)=(3,2)", "(3,2)"),
    ("4x+3y=12", "12 = 3y+4x"),
    ("x < 3", r"3 \gt x"),
    (r"x \in [-2,7]", r"-2 \le x \le 7"),
    (r"(-\infty,1]", r"x \le 1"),
    (r"x \ne 3", "x != 3"),
    # lists, sets, tuples, intervals, matrices, signs
    ("1, 2", "2 and 1"),
    ("1,2,3", r"\{3, 1, 2\}"),
    ("a or b", "b, a"),
    ("5", "5, 5"),
    ("(1,2),(3,4)", "(3,4) and (1,2)"),
    ("(1, 9/2)", "(1, 4.5)"),
    ("(1,2)", r"\left( 1,\; 2 \right)"),
    ("1,2", "(1,2)"),
    ("2/7, 2.2361", r"\frac27, \sqrt5"),
    ("[0, 0.5)", r"\left[0, \tfrac12\right)"),
    (r"(0,1)\cup(1,2)", r"(1,2) \cup (0,1)"),
    (r"(1, \infty)", r"(1,+\infty)"),
    (r"\begin{pmatrix}1\\0.5\end{pmatrix}", r"\begin{bmatrix} 1 \\ \frac12 \end{bmatrix}"),
    (r"\pm 2", "2, -2"),
    (r"1 \pm \sqrt{2}", r"1-\sqrt{2}, 1+\sqrt{2}"),
    ("x=1, x=-1", r"x = \pm 1"),
    ("a=1, b=4 and a=3, b=8", "a=1,b=4;a=3,b=8"),
    ("PQ=6, RS=9", "6, 9"),
    ("a=1, b=2", "b=2, a=1"),
    # words
    (r"\text{Evelyn}", "evelyn"),
    ("A", "(A)"),
    (r"\text{E}", "E"),
    (r"\text{no solution}", "No solution."),
    (r"\emptyset", r"\varnothing"),
]

WRONG = [
    ("1/2", "0.51"),
    ("1/3", "0.33"),
    ("0.333", "1/3"),
    (r"\sqrt{2}", "1.414"),
    (r"\pi", "3.14"),
    ("3.14", r"\pi"),
    ("12", "12,000"),
    ("1,000", "1"),
    ("1000000", "1000001"),
    ("12345", "12346"),
    ("2", "2.0000001"),
    ("99", "99.9"),
    ("3", "-3"),
    ("1000", "10^4"),
    ("2.64e-9", "2.65e-9"),
    ("1e400", "1e401"),
    ("12_7", "12_8"),
    ("11", "12_{7}"),
    ("5", "50\\%"),
    ("0.5", "50"),
    ("5", "0.05"),
    ("1.4", "14\\%"),
    ("5 cm", "5 m"),
    (r"5\text{ km/h}", r"5 \text{ m/s}"),
    ("x=3", "x=-3"),
    ("x=1", "y=1"),
    ("y=2x", "y=3x"),
    ("4x+3y=12", "4x+3y=13"),
    ("4x+3y=12", "12"),
    ("x^2+y^2=1", "x^2-y^2=1"),
    ("2x", "2y"),
    ("x", "y"),
    ("x", "X"),
    ("5", "5x"),
    ("5x", "5"),
    ("x^2+1", "x^2-1"),
    ("2+3i", "2-3i"),
    ("2i", "2"),
    ("|x|", "x"),
    (r"\sqrt{x^2}", "x"),
    ("n!", "n"),
    (r"\log 2", r"\ln 2"),
    (r"3-\frac{1}{\mathrm{e}}", r"3+\frac1e"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", "2,1"),
    ("(1,2)", "[1,2]"),
    ("[1,2)", "(1,2]"),
    ("(1,3)", r"1 \le x \le 3"),
    (r"(0,1)\cup(1,2)", "(0,2)"),
    (r"\{1,2\}", r"\{1,3\}"),
    (r"\{1,2\}", "(1,2)"),
    ("1,2", "1"),
    ("1", "1,2"),
    ("1,2,3", "1,2"),
    ("(1,2),(3,4)", "(1,4),(3,2)"),
    ("x=1,y=2", "x=2,y=1"),
    ("x=1,y=2", "2,1"),
    (r"\pm 2", "2"),
    ("2", r"\pm 2"),
    (r"1 \pm \sqrt2", r"1+\sqrt2"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}"),
    (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ("A", "B"),
    (r"\text{even}", "odd"),
    (r"\text{Monday}", "Tuesday"),
    ("2:30", "3:30"),
    (r"\infty", r"-\infty"),
    ("3", r"\text{about } 4"),
    (r"10^{10^{2}}", "10^{10}"),
    ("3 or 4", "3"),
    ("0", r"\emptyset"),
    ("1", ""),
    ("", ""),
    ("", "5"),
    (" ", " "),
    (r"\boxed{}", r"{}"),
]


@pytest.fixture(scope="module")
def verifier() -> Iterator[MathVerifier]:
    with MathVerifier() as verifier:
        yield verifier


@pytest.fixture(scope="module")
def verdicts(verifier: MathVerifier) -> dict[tuple[str, str], Verdict]:
    rows = RIGHT + WRONG
    boxed = [f"So it is $\\boxed{{{answer}}}$." for _, answer in rows]
    return dict(zip(rows, verifier.verify(boxed, [gold for gold, _ in rows]), strict=True))


@pytest.mark.parametrize("row", RIGHT)
def test_the_same_answer_in_another_spelling_is_right(
    verdicts: dict[tuple[str, str], Verdict], row: tuple[str, str]
) -> None:
    verdict = verdicts[row]
    assert (verdict.correct, verdict.reward, verdict.status) == (True, 1.0, VerifyStatus.OK)


@pytest.mark.parametrize("row", WRONG)
def test_another_answer_is_wrong(
    verdicts: dict[tuple[str, str], Verdict], row: tuple[str, str]
) -> None:
    assert (verdicts[row].correct, verdicts[row].reward) == (False, 0.0)


def test_the_tables_hold_no_row_twice() -> None:
    rows = RIGHT + WRONG
    assert len(set(rows)) == len(rows)


def test_verdicts_keep_the_order_and_say_what_was_found(verifier: MathVerifier) -> None:
    completions = [
        "\\boxed{4}",
        "there is no answer here",
        "the answer is 5",
        "\\boxed{x+x}",
        "\\boxed{{}}",
    ]
    verdicts = verifier.verify(completions, ["4", "4", "4", "2x", "4"])
    assert [verdict.correct for verdict in verdicts] == [True, False, False, True, False]
    assert [verdict.extracted for verdict in verdicts] == ["4", None, "5", "x+x", "{}"]
    statuses = [verdict.status.value for verdict in verdicts]
    assert statuses == ["ok", "parse_fail", "ok", "ok", "ok"]


def test_a_gold_of_several_parts_may_be_given_in_several_boxes(verifier: MathVerifier) -> None:
    completion = r"We find $\boxed{1}$, $\boxed{2}$ and $\boxed{3}$."
    apart = r"First \boxed{1}; a long way after that we find \boxed{2}."
    verdicts = verifier.verify(
        [completion, completion, completion, apart, apart],
        ["1, 2, 3", "3", "1", "1, 2", r"\boxed{1} and then not but \boxed{2}"],
    )
    assert [verdict.correct for verdict in verdicts] == [True, True, False, False, True]


def test_any_of_several_golds_will_do(verifier: MathVerifier) -> None:
    verdicts = verifier.verify(["\\boxed{2}"] * 3, [("1", "2"), ("1", "3"), ("", "2")])
    assert [verdict.correct for verdict in verdicts] == [True, False, True]


def test_golds_may_be_whole_solutions(verifier: MathVerifier) -> None:
    golds = [
        "3 + 4 = <<3+4=7>>7\n#### 7",
        r"Adding gives $\boxed{7}$.",
        "$7$",
        r"\boxed{7",
        "#### ",
        "1,000 + 2\n#### 1,002",
    ]
    verdicts = verifier.verify(["#### 7"] * 5 + ["= 1002"], golds)
    assert [verdict.correct for verdict in verdicts] == [True, True, True, True, False, True]

"""SVGs in a page: ids of their own, no inline style, the same drawing."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from thr_probe.report.inline_svg import inline_svg

ROOT = Path(__file__).parents[2]
COMMITTED = sorted((ROOT / "reports").rglob("*.svg"))


def _inline(path: Path, prefix: str = "f1") -> str:
    return str(inline_svg(path.read_text(), prefix=prefix, label="A label."))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_ids_are_those_referred_to_and_every_reference_leads_somewhere(path):
    svg = _inline(path)
    ids = re.findall(r'\bid="([^"]*)"', svg)
    referred = set(re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', svg))
    assert len(set(ids)) == len(ids)
    assert set(ids) == {one or other for one, other in referred}
    assert all(name.startswith("f1-") for name in ids)
    assert not set(ids) & set(re.findall(r'\bid="([^"]*)"', _inline(path, "f2")))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_nothing_is_left_that_a_content_security_policy_refuses(path):
    svg = _inline(path)
    assert not re.search(r"\sstyle=|<style|<script|\son\w+=|xlink|http", svg)
    assert "<!--" not in svg
    ElementTree.fromstring(svg)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_paths_keep_their_numbers_to_a_hundredth_of_a_point(path):
    number = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")

    def coordinates(text: str) -> list[np.ndarray]:
        found = (
            element.attrib["d"]
            for element in ElementTree.fromstring(text).iter()
            if "d" in element.attrib
        )
        return [np.array(number.findall(d), dtype=float) for d in found]

    before, after = coordinates(path.read_text()), coordinates(_inline(path))
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        np.testing.assert_allclose(new, old, rtol=0, atol=0.00501)


def test_the_name_is_escaped_and_the_size_is_that_of_the_screen():
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 50"><g/></svg>'
    shown = ElementTree.fromstring(inline_svg(svg, prefix="f", label='<a> & "b"'))
    assert shown.attrib["aria-label"] == '<a> & "b"'
    assert shown.attrib["role"] == "img"
    assert (shown.attrib["width"], shown.attrib["height"]) == ("185", "92.5")
    assert shown.attrib["class"] == "column"


def test_declarations_become_attributes():
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 300 50"><defs><style>*{}</style>'
        '<clipPath id="c"/></defs><path id="p" d="M 1.23456 2 \nL 3 4.0001" clip-path="url(#c)" '
        'style="fill: none; stroke: #123456"/></svg>'
    )
    path = ElementTree.fromstring(inline_svg(svg, prefix="f", label="x")).find("path")
    assert path is not None
    assert path.attrib == {
        "d": "M 1.23 2 L 3 4",
        "clip-path": "url(#f-0)",
        "fill": "none",
        "stroke": "#123456",
    }

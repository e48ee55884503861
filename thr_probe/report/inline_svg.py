"""A figure's SVG made fit to stand in a page: ids of its own, no style of its own, a name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from markupsafe import Markup

_HREF = "{http://www.w3.org/1999/xlink}href"
_HOLDERS = frozenset({"g", "defs"})
_DROPPED = frozenset({"metadata", "style"})
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_DECLARATION = re.compile(r"\s*([\w-]+)\s*:\s*([^;]+)")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_COLUMN_POINTS = 260
_PIXELS_PER_POINT = 1.85  # 8 pt of print become about 15 px of screen


def inline_svg(svg: str, *, prefix: str, label: str) -> Markup:
    """The SVG as part of an HTML page.

    Styles become presentation attributes, which a content security policy without inline styles
    lets pass; ids that nothing refers to go, the others get the prefix; paths are rounded to a
    hundredth of a point.

    Args:
        svg: as matplotlib writes it.
        prefix: unique in the page.
        label: what it shows, in a sentence, for those who cannot see it.

    Raises:
        ElementTree.ParseError: no SVG.
    """
    root = ElementTree.fromstring(svg)
    ids = {old: f"{prefix}-{place}" for place, old in enumerate(_referred(root))}
    _convert(root, ids)
    _name(root, label)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _referred(root: ElementTree.Element) -> list[str]:
    """The ids that something refers to, in the order of the references."""
    found: dict[str, None] = {}
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == _HREF and value.startswith("#"):
                found[value[1:]] = None
            found.update(dict.fromkeys(_REFERENCE.findall(value)))
    return list(found)


def _convert(parent: ElementTree.Element, ids: dict[str, str]) -> None:
    parent.tag = parent.tag.rpartition("}")[2]
    parent.attrib = dict(_attributes(parent, ids))
    parent.text = parent.tail = None  # white space: text is drawn as paths
    for child in list(parent):
        if child.tag.rpartition("}")[2] not in _DROPPED:
            _convert(child, ids)
        if child.tag.rpartition("}")[2] in _DROPPED or (child.tag in _HOLDERS and not len(child)):
            parent.remove(child)


def _attributes(element: ElementTree.Element, ids: dict[str, str]) -> Iterator[tuple[str, str]]:
    for key, value in element.attrib.items():
        if key == "id":
            if value in ids:
                yield "id", ids[value]
        elif key == _HREF:
            yield "href", f"#{ids[value[1:]]}" if value.startswith("#") else value
        elif key == "style":
            yield from _declared(value, ids)
        elif key in {"d", "x", "y", "points"}:
            yield key, _rounded(value)
        elif not key.startswith("{"):
            yield key, _renamed(value, ids)


def _declared(style: str, ids: dict[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in _DECLARATION.findall(style):
        yield name, _renamed(value.strip(), ids)


def _renamed(value: str, ids: dict[str, str]) -> str:
    return _REFERENCE.sub(lambda match: f"url(#{ids[match[1]]})", value)


def _rounded(value: str) -> str:
    shorter = _LONG_NUMBER.sub(
        lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), value
    )
    return " ".join(shorter.split())


def _name(root: ElementTree.Element, label: str) -> None:
    points = [float(size) for size in root.attrib["viewBox"].split()[2:]]
    sizes = zip(("width", "height"), points, strict=True)
    root.attrib |= {side: f"{_PIXELS_PER_POINT * size:.6g}" for side, size in sizes}
    # what the dropped style sheet said of every element; both are inherited
    root.attrib |= {"stroke-linejoin": "round", "stroke-linecap": "butt"}
    root.attrib |= {"role": "img", "aria-label": label}
    if points[0] < _COLUMN_POINTS:
        root.attrib["class"] = "column"  # readable at the width of a phone

"""Reports and other documents written down: as a page that prints well, and as plain text.

All that comes from a data set is escaped; the page needs nothing from elsewhere and runs no script.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape

from wado.dicom.report import Node, Reference, Report

Link = Callable[[Reference], str]
"""Where an instance can be seen; empty if that is not known."""

_STYLE = """
:root { color-scheme: light; --line: #cdd3da; --soft: #5b6672; }
body { font: 15px/1.5 system-ui, "Segoe UI", Arial, sans-serif; color: #14181d; background: #fff;
  max-width: 52rem; margin: 0 auto; padding: 1.5rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 1rem; }
h2, h3, h4, h5, h6 { font-size: 1.1rem; margin: 1.2rem 0 .3rem; break-after: avoid; }
h4, h5, h6 { font-size: 1rem; }
table { border-collapse: collapse; width: 100%; margin-bottom: 1rem; }
th, td { text-align: left; vertical-align: top; padding: .1rem .8rem .1rem 0; }
th { font-weight: 500; color: var(--soft); white-space: nowrap; width: 1%; }
header { border-bottom: 2px solid var(--line); margin-bottom: 1rem; }
section section { padding-left: .9rem; border-left: 2px solid var(--line); }
ul { list-style: none; margin: .1rem 0 .3rem; padding-left: 1.2rem; }
li { break-inside: avoid; }
.name { font-weight: 600; } .value { white-space: pre-line; }
.how { color: var(--soft); font-size: .85em; }
a { color: #0b5cad; } img { max-height: 10rem; max-width: 12rem; background: #000; display: block; }
svg { width: 100%; height: auto; }
footer { margin-top: 2rem; color: var(--soft); font-size: .8em; }
@media print { body { max-width: none; padding: 0; font-size: 11pt; } a { color: inherit; } }
"""
_HEADINGS = 6
_RELATIONS = {
    "CONTAINS": "",
    "HAS PROPERTIES": "",
    "HAS OBS CONTEXT": "context",
    "HAS ACQ CONTEXT": "acquisition",
    "HAS CONCEPT MOD": "",
    "INFERRED FROM": "inferred from",
    "SELECTED FROM": "selected from",
}
_INDENT = "  "

Pairs = Sequence[tuple[str, str]]


def page(title: str, headers: Iterable[Pairs], body: Iterable[str]) -> str:
    """Make a page: title, tables of names and values, and a body that is HTML already."""
    tables = "".join(_table(pairs) for pairs in headers)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><header><h1>{escape(title)}</h1>{tables}</header>\n{''.join(body)}</body></html>\n"
    )


def _table(pairs: Pairs) -> str:
    rows = (f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>\n" for name, value in pairs)
    return f"<table>{''.join(rows)}</table>\n" if pairs else ""


# ------------------------------------------------------------------ as a page


def to_html(report: Report, link: Link, sop_instance_uid: str) -> str:
    """Write a report as a page; `link` says where the instances that it points to can be seen."""
    footer = f"<footer>SOP Instance UID {escape(sop_instance_uid)}</footer>"
    body = (*_children(report.root, link, 2), footer)
    return page(report.title, (report.patient, report.document), body)


def _children(parent: Node, link: Link, level: int) -> Iterator[str]:
    """Write the items below one: runs of simple ones as lists, containers as sections."""
    if parent.continuous:
        yield "<p>"
        for node in parent.children:
            yield from _in_line(node, link)
        yield "</p>\n"
        return
    open_list = False
    for node in parent.children:
        is_section = node.value_type == "CONTAINER"
        if open_list == is_section:
            yield "</ul>\n" if open_list else "<ul>\n"
            open_list = not open_list
        yield from _section(node, link, level) if is_section else _item(node, link, level)
    if open_list:
        yield "</ul>\n"


def _section(node: Node, link: Link, level: int) -> Iterator[str]:
    heading = min(level, _HEADINGS)
    yield f'<section id="i{node.position}">'
    if node.concept:
        yield f"<h{heading}>{escape(node.concept)}</h{heading}>\n"
    yield from _children(node, link, level + 1)
    yield "</section>\n"


def _in_line(node: Node, link: Link) -> Iterator[str]:
    """Write an item as a part of the running text; what is said about it follows in brackets."""
    yield f'<span class="value" id="i{node.position}" title="{escape(node.concept)}">'
    yield f"{escape(node.value)}</span> "
    for reference in node.references:
        yield f"{_reference(reference, link(reference))} "
    if node.children:
        yield '<span class="how">('
        for child in node.children:
            yield f"{escape(child.concept)}: "
            yield from _in_line(child, link)
        yield ")</span> "


def _item(node: Node, link: Link, level: int) -> Iterator[str]:
    yield f'<li id="i{node.position}">'
    how = _RELATIONS.get(node.relationship, node.relationship.lower())
    if how:
        yield f'<span class="how">{escape(how)}</span> '
    if node.concept:
        yield f'<span class="name">{escape(node.concept)}:</span> '
    if node.value:
        yield f'<span class="value">{escape(node.value)}</span>'
    if node.bulk_uri:
        yield '<span class="how">a text too long to be shown here; it is in the bulk data</span>'
    if node.target:
        yield f'<a href="#i{escape(node.target)}">see there</a>'
    for reference in node.references:
        yield _reference(reference, link(reference))
    yield from _children(node, link, level)
    yield "</li>\n"


def _reference(reference: Reference, address: str) -> str:
    text = escape(describe(reference))
    if not address:
        return f" <span>{text}</span>"
    at = escape(address)
    shown = f'<img loading="lazy" alt="" src="{at}">' if reference.is_image else ""
    return f' <a href="{at}">{shown}{text}</a>'


def describe(reference: Reference) -> str:
    """Say which instance is meant, in words."""
    frames = ", ".join(map(str, reference.frames))
    segments = ", ".join(map(str, reference.segments))
    parts = (
        "image" if reference.is_image else "object",
        reference.sop_instance_uid,
        f"frame {frames}" if frames else "",
        f"segment {segments}" if segments else "",
    )
    return " ".join(filter(None, parts))


# ------------------------------------------------------------------ as text


def to_text(report: Report) -> str:
    """Write a report as plain text, indented as its content is nested."""
    lines = [report.title, "=" * len(report.title), ""]
    lines += [f"{name}: {value}" for name, value in (*report.patient, *report.document)]
    lines.append("")
    waiting = [(node, 0) for node in reversed(report.root.children)]
    while waiting:
        node, depth = waiting.pop()
        lines += _lines(node, depth)
        if node.continuous:
            lines += [f"{_INDENT * (depth + 1)}{line}" for line in _running(node).split("\n")]
        else:
            waiting += [(child, depth + 1) for child in reversed(node.children)]
    return "\n".join(lines) + "\n"


def _running(node: Node) -> str:
    """Write the items below one as running text."""
    words = []
    for child in node.children:
        about = _running(child)
        words += [_said(child), f"({about})" if about else ""]
    return " ".join(filter(None, words))


def _said(node: Node) -> str:
    target = f"see {node.target}" if node.target else ""
    text = "; ".join(filter(None, (node.value, target, *map(describe, node.references))))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _lines(node: Node, depth: int) -> Iterator[str]:
    indent = _INDENT * depth
    how = _RELATIONS.get(node.relationship, node.relationship.lower())
    name = f"{node.concept}:" if node.concept else ""
    first, *rest = " ".join(filter(None, (how, name, _said(node)))).split("\n")
    if node.value_type == "CONTAINER" and depth == 0:
        yield ""
    yield f"{indent}{first}"
    yield from (f"{indent}{_INDENT}{line}" for line in rest)

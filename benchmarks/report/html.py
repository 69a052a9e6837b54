"""Text to HTML. Everything that comes from a document passes through `escape`: a model's name is no markup."""

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

_STYLE = Path(__file__).with_name("page.css")


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(value: Any) -> str:
    """As HTML; `Markup` stays what it is."""
    return str(value) if isinstance(value, Markup) else html.escape(str(value))


def element(name: str, *content: Any, **attributes: Any) -> Markup:
    """One element; `class_` stands for class, underscores for hyphens, None for an attribute that is not there."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"' for key, value in attributes.items() if value is not None
    )
    return Markup(f"<{name}{given}>{''.join(map(escape, content))}</{name}>")


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]], *, caption: str | None = None, class_: str | None = None) -> Markup:
    """The first cell of a row is its head. Wide tables scroll by themselves, not the page; the keyboard reaches them."""
    titles = [element("th", one, scope="col") for one in head]
    body = [element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:])) for row in rows]
    parts = [element("caption", caption)] if caption else []
    parts += [element("thead", element("tr", *titles))] if any(head) else []
    whole = element("table", *parts, element("tbody", *body), class_=class_)
    return element("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption or "table")


def tree(values: Any) -> Markup:
    """Nested mappings and lists as nested lists of definitions."""
    if isinstance(values, Mapping):
        rows = [element("dt", key) + element("dd", tree(value)) for key, value in values.items()]
        return element("dl", *map(Markup, rows)) if rows else Markup("none")
    if isinstance(values, list | tuple):
        if all(not isinstance(value, Mapping | list | tuple) for value in values):
            return Markup(escape(", ".join(map(str, values)) or "none"))
        return element("ul", *(element("li", tree(value)) for value in values))
    return Markup(escape("none" if values is None else values))


def page(title: str, body: Iterable[Any], scripts: Sequence[str] = (), data: Any = None) -> str:
    """The whole page. Its policy lets nothing be loaded from anywhere, and run no script but `scripts`, by their hashes."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts)
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src {hashes or repr('none')}; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    head = [
        Markup('<meta charset="utf-8">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<meta name="color-scheme" content="light dark">'),
        element("title", title),
        Markup(f"<style>\n{_STYLE.read_text(encoding='utf-8')}</style>"),
    ]
    tail = [Markup(f'<script type="application/json" id="data">{in_script(data)}</script>')] if data is not None else []
    tail += [Markup(f"<script>{script}</script>") for script in scripts]
    main = element("main", *body)
    return f'<!doctype html>\n<html lang="en">\n{element("head", *head)}\n{element("body", main, *tail)}\n</html>\n'


def in_script(data: Any) -> str:
    """JSON that cannot end the element around it: in a script `<` is written as its escape, which JSON reads as the same."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")

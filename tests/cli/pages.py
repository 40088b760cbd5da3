"""Reading the pages that inspect --html writes."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

NASTY = "<b>&\"'\\ </script><!--\u00e9\U0001f642"
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Checks that elements nest, and keeps text by element, and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.attributes: list[tuple[str, str | None]] = []
        self.tables: dict[str, list[list[str]]] = {}  # by id: rows of cells
        self.table = ""
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag == "table":
            self.table = dict(attrs).get("id") or ""
            self.tables[self.table] = []
        if tag == "tr":
            self.tables[self.table].append([])
        if tag in ("td", "th"):
            self.tables[self.table][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open or "th" in self.open:
            self.tables[self.table][-1][-1] += data
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)

    @property
    def data(self) -> dict[str, Any]:
        scripts = [json.loads(t) for t in self.texts["script"] if t.startswith("{")]
        assert len(scripts) == 1
        found: dict[str, Any] = scripts[0]
        return found


def needs_nothing_else(text: str) -> bool:
    return not re.search(r"""(src|href)\s*=|url\(|@import|https?://""", text)

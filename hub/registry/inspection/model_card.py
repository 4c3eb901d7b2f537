"""A model card: README.md with YAML front matter, read so that nothing in it can harm a database, a page or this process."""

import math
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_CARD_BYTES = 256 << 10
MAX_FRONT_BYTES = 64 << 10
MAX_DEPTH = 20


class CardError(ValueError):
    """The front matter cannot be read; the message says why."""


@dataclass(frozen=True)
class Card:
    front: dict[str, object] = field(default_factory=dict)  # JSON values only
    text: str = ""

    def values(self, name: str) -> list[str]:
        """A field that is one text or a list of them."""
        value = self.front.get(name)
        return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str) and item]

    @property
    def licence(self) -> str | None:
        """Its id, or its name where it is none of those that have one."""
        named = [*self.values("license"), *self.values("license_name")]
        return next((name for name in named if name != "other"), None)

    @property
    def description(self) -> str:
        """The first paragraph of prose, at most 300 characters; headings, lists, tables and template text are passed over."""
        for paragraph in _without_comments(self.text[:16_384]).split("\n\n"):
            line = " ".join(paragraph.split())
            if line and line[0] not in "#-*<>|!`=[" and "more information needed" not in line.lower():
                return line if len(line) <= 300 else f"{line[:299]}…"
        return ""


class _Loader(yaml.SafeLoader):
    """YAML as JSON knows it: no dates, and no aliases, with which a few lines can stand for gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise CardError("it uses a YAML alias (*name); write the value out")
        return super().compose_node(parent, index)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regex) for tag, regex in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_card(data: bytes) -> Card:
    """Front matter between the first two lines of ---, and the text after it. Raises CardError."""
    text = data[:MAX_CARD_BYTES].decode(errors="replace").replace("\r\n", "\n").replace("\0", "")
    if not text.startswith("---\n"):
        return Card(text=text)
    front, end, body = text[4:].partition("\n---")
    if text[4:].startswith("---"):
        front, end, body = "", "---", text[7:]
    if not end or len(front) > MAX_FRONT_BYTES:
        raise CardError("its front matter has no closing --- or is longer than 64 KiB")
    try:
        found = yaml.load(front, _Loader)  # noqa: S506 (a subclass of SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise CardError(f"its front matter is not YAML ({' '.join(str(error).split())})") from error
    if found is not None and not isinstance(found, dict):
        raise CardError("its front matter is not a mapping of names to values")
    return Card(_plain(found or {}), body.removeprefix("\n"))


def _plain(value: Any, depth: int = 0) -> Any:
    if depth > MAX_DEPTH:
        raise CardError("its front matter is nested too deeply")
    if isinstance(value, dict):
        return {_clean(str(key)): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, bool | int) or value is None:
        return value if not isinstance(value, int) or abs(value) < 1 << 63 else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return _clean(str(value))


def _clean(text: str) -> str:
    """Without what JSON in PostgreSQL and UTF-8 cannot hold, which an escape in YAML can write."""
    return "".join("\ufffd" if char == "\0" or "\ud800" <= char <= "\udfff" else char for char in text)


def _without_comments(text: str) -> str:
    kept = ""
    while text:
        before, _, rest = text.partition("<!--")
        kept += before
        text = rest.partition("-->")[2]
    return kept

"""Text from strangers: what an entry may hold, and how foreign strings are brought into that form.

Nothing here makes a string safe for HTML: escaping is the page's business. This is about what no reader should have
to deal with anywhere: control characters, characters that turn the reading direction, endless lines, odd links.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_TAG = re.compile(r"<[^<>]{0,300}>")
_UNSAFE_STEM = re.compile(r"[^A-Za-z0-9._+@=-]+")

MAX_LINE = 400
"""Most characters of a title, a name, a list of authors."""
MAX_TEXT = 4000
"""Most characters of a footnote."""
MAX_STEM = 80
"""Most characters of an id."""


def _plain(text: str) -> str:
    if odd := _CONTROLS.search(text):
        raise ValueError(f"holds the control character {odd[0]!r}; remove it")
    return text


def _web(text: str) -> str:
    if text and not is_web_link(text):
        raise ValueError(f"{text[:60]!r} is not a web address; write https://... or leave it out")
    return text


Line = Annotated[str, Field(max_length=MAX_LINE), AfterValidator(_plain)]
"""A line for display."""
Text = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_plain)]
"""A few sentences for display."""
Link = Annotated[str, Field(max_length=MAX_LINE), AfterValidator(_plain), AfterValidator(_web)]
"""A web address, or nothing."""


def is_web_link(text: str) -> bool:
    """Whether `text` is an absolute http or https address of printable characters."""
    if re.search(r"[\s<>\"'`\\]", text) or _CONTROLS.search(text) or len(text) > MAX_LINE:
        return False
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def cleaned(text: str, limit: int = MAX_LINE) -> str:
    """A foreign string as a line for display: tags and control characters out, blanks joined, cut to `limit`."""
    plain = " ".join(_CONTROLS.sub(" ", _TAG.sub(" ", text)).split())
    return plain if len(plain) <= limit else plain[: limit - 1].rstrip() + "…"


def stem_of(text: str) -> str:
    """An id made of a foreign name: letters, digits and `. _ + @ = -` only, no leading dot, at most 80 characters.

    Equal names give equal ids; two names may give the same one, which the caller has to notice.
    """
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    stem = _UNSAFE_STEM.sub("-", ascii_text).strip("-._+@=")[:MAX_STEM]
    return stem.rstrip("-._+@=") or "unnamed"


def visible(text: object) -> str:
    """A foreign string with its control characters written out, so that a page shows them instead of obeying them."""
    return _CONTROLS.sub(lambda odd: f"\\u{ord(odd[0]):04x}", str(text))

"""Reading the JSON of a request: every field by name and type, nothing left unread.

A field that is unknown or of a wrong type is refused: a misspelt `neverExpire` that is silently
ignored surprises somebody later. null means that a field is left out. Must not know what the
fields are for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from garage_lite.web.admin.errors import AdminError, bad_request

T = TypeVar("T")

NUMBER_MAX: Final = 2**63 - 1
TEXT_CHARS_MAX: Final = 64 * 1024


class Fields:
    """The members of one JSON object. Take each, then `end`."""

    def __init__(self, value: Any, what: str = "the request") -> None:
        """Raises AdminError unless `value` is an object, or null (an empty one)."""
        if value is not None and not isinstance(value, dict):
            raise bad_request(f"{what} must be a JSON object")
        self._left: dict[str, Any] = dict(value or {})
        self._what = what

    def optional_text(self, name: str) -> str | None:
        value = self._left.pop(name, None)
        if value is not None and not isinstance(value, str):
            raise self._wrong(name, "a string")
        if value is not None and (len(value) > TEXT_CHARS_MAX or _unsound(value)):
            raise self._wrong(name, "a string of reasonable length, in valid Unicode")
        return value

    def text(self, name: str) -> str:
        return self._required(name, self.optional_text(name))

    def optional_number(self, name: str) -> int | None:
        value = self._left.pop(name, None)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= NUMBER_MAX:
            raise self._wrong(name, f"a whole number from 0 to {NUMBER_MAX}")
        return value

    def number(self, name: str) -> int:
        return self._required(name, self.optional_number(name))

    def query_number(self, name: str) -> int | None:
        """A number that may come as text, from a URL."""
        value = self._left.get(name)
        if isinstance(value, str):
            if not (value.isascii() and value.isdecimal() and len(value) < 19):
                raise self._wrong(name, "a whole number")
            self._left[name] = int(value)
        return self.optional_number(name)

    def flag(self, name: str) -> bool:
        """False where it is left out."""
        value = self._left.pop(name, None)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return bool(value)

    def query_flag(self, name: str) -> bool:
        """A flag that may come as text, from a URL."""
        value = self._left.get(name)
        if value in ("true", "false"):
            self._left[name] = value == "true"
        return self.flag(name)

    def optional_list(self, name: str) -> list[Any] | None:
        value = self._left.pop(name, None)
        if value is not None and not isinstance(value, list):
            raise self._wrong(name, "a list")
        return value

    def texts(self, name: str) -> list[str]:
        """A list of strings; empty where it is left out."""
        values = self.optional_list(name) or []
        if not all(isinstance(value, str) and not _unsound(value) for value in values):
            raise self._wrong(name, "a list of strings")
        return values

    def inner(self, name: str, read: Callable[[Fields], T]) -> T | None:
        """What `read` makes of the object `name`; None where it is left out."""
        value = self._left.pop(name, None)
        if value is None:
            return None
        fields = Fields(value, name)
        result = read(fields)
        fields.end()
        return result

    def raw(self, name: str) -> Any:
        """Whatever it is; for members that are read elsewhere."""
        return self._left.pop(name, None)

    def has(self, name: str) -> bool:
        return self._left.get(name) is not None

    def end(self) -> None:
        """Raises AdminError if a field is left unread."""
        if self._left:
            names = ", ".join(sorted(str(name)[:64] for name in self._left))
            raise bad_request(f"{self._what} has unknown fields: {names}")

    def _required(self, name: str, value: T | None) -> T:
        if value is None:
            raise bad_request(f"{self._what} lacks the field `{name}`")
        return value

    def _wrong(self, name: str, wanted: str) -> AdminError:
        return bad_request(f"the field `{name}` must be {wanted}")


def _unsound(text: str) -> bool:
    """Whether a string holds half of a surrogate pair, which no encoding can carry."""
    return any("\ud800" <= char <= "\udfff" for char in text)

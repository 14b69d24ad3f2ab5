"""Conditions of requests against the current version of a key. Pure.

A write condition is decided where the write is (in the guard of `Tables.write`), so that of many
racing writers exactly one wins; it is looked at once more before the body is read, so that a
refusal comes before gigabytes are sent. Precedence of read conditions: RFC 9110, section 13.2.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from garage_lite.core.errors import NoSuchKey, PreconditionFailed
from garage_lite.core.model.objects import ObjectVersion

ANY = "*"


def etag_matches(expected: str, version: ObjectVersion) -> bool:
    """Whether one of a comma separated list of ETags (quoted or bare), or `*`, is the version's."""
    if expected.strip() == ANY:
        return True
    candidates = (item.strip().removeprefix("W/").strip('"') for item in expected.split(","))
    return version.etag_text in candidates


@dataclass(frozen=True, slots=True)
class WriteCondition:
    """What must hold of the current version when a write takes effect."""

    if_none_match: str | None = None
    """`*`: no object may be there; ETags: not one of these."""
    if_match: str | None = None
    """ETags, or `*` for any object."""


def check_write(condition: WriteCondition | None, current: ObjectVersion | None) -> None:
    """Raises PreconditionFailed; NoSuchKey where If-Match meets nothing, as AWS does."""
    if condition is None:
        return
    exists = current is not None and current.has_data
    unwanted = condition.if_none_match
    if unwanted is not None and current is not None and exists and etag_matches(unwanted, current):
        raise PreconditionFailed(condition="If-None-Match")
    if condition.if_match is not None:
        if current is None or not exists:
            raise NoSuchKey
        if not etag_matches(condition.if_match, current):
            raise PreconditionFailed(condition="If-Match")


class Outcome(Enum):
    PROCEED = "proceed"
    NOT_MODIFIED = "not modified"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ReadCondition:
    """The four conditions of a read, or of the source of a copy. Times in seconds, as in HTTP."""

    if_match: str | None = None
    if_none_match: str | None = None
    if_modified_since: int | None = None
    if_unmodified_since: int | None = None

    def outcome(self, version: ObjectVersion) -> tuple[Outcome, str]:
        """What to do, and the name of the header that decided.

        If-Match, once it holds, makes If-Unmodified-Since count no more; likewise If-None-Match
        and If-Modified-Since.
        """
        mtime = version.mtime_ms // 1000
        if self.if_match is not None:
            if not etag_matches(self.if_match, version):
                return Outcome.FAILED, "If-Match"
        elif self.if_unmodified_since is not None and mtime > self.if_unmodified_since:
            return Outcome.FAILED, "If-Unmodified-Since"
        if self.if_none_match is not None:
            if etag_matches(self.if_none_match, version):
                return Outcome.NOT_MODIFIED, "If-None-Match"
        elif self.if_modified_since is not None and mtime <= self.if_modified_since:
            return Outcome.NOT_MODIFIED, "If-Modified-Since"
        return Outcome.PROCEED, ""


def check_source(condition: ReadCondition | None, source: ObjectVersion) -> None:
    """Conditions on a copy's source: whatever does not hold is PreconditionFailed."""
    if condition is None:
        return
    outcome, header = condition.outcome(source)
    if outcome is not Outcome.PROCEED:
        raise PreconditionFailed(condition=f"x-amz-copy-source-{header}")

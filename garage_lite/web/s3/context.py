"""What the handlers work with: the store's verbs and the settings of this endpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from garage_lite.core.ports import Clock, Entropy
from garage_lite.core.store.buckets import Buckets
from garage_lite.core.store.copies import Copies
from garage_lite.core.store.directory import Directory
from garage_lite.core.store.listing import Listing
from garage_lite.core.store.objects import Objects
from garage_lite.core.store.uploads import Uploads


@dataclass(frozen=True, slots=True)
class S3Settings:
    """The part of the configuration that S3 clients can see."""

    region: str
    root_domain: str | None = None
    """Suffix of virtual-host style names, with or without a leading dot."""
    public_endpoint: str | None = None
    """URL under which clients reach this endpoint; for Location."""
    public_endpoint_path_style: bool | None = None
    host_id: str = "garage-lite"
    """Names this node in answers (HostId)."""


@dataclass(frozen=True, slots=True)
class S3Context:
    """One for each S3 endpoint."""

    directory: Directory
    objects: Objects
    uploads: Uploads
    copies: Copies
    listing: Listing
    buckets: Buckets
    clock: Clock
    entropy: Entropy
    settings: S3Settings
    has_layout: Callable[[], bool] = lambda: True
    """Whether it is said where data go; before, nothing can be stored or found."""
    log_event: Callable[..., None] | None = None
    """A cheaper way than the logging module to log a line per request: called with the
    time in microseconds, a logger's name, a function that makes the message, its arguments."""

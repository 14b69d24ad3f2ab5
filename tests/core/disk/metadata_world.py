"""A small metadata store on a simulated disk, for the tests of the engine."""

from __future__ import annotations

from collections.abc import Iterable

from garage_lite.core.disk.metadata import MetadataOptions, MetadataStore
from garage_lite.core.ports import Files
from tests.sim.loop import SimClock, SimEntropy

DIRECTORY = "/var/meta"
SUFFIXED = 0x10
"""A table whose bloom filters leave out four bytes."""

SMALL = MetadataOptions(
    suffix_bytes={SUFFIXED: 4},
    memtable_bytes=3000,
    log_file_bytes=16 * 1024,
    log_files_max=2,
    segment_rows_max=12,
    fan_in=2,
    block_cache_bytes=20_000,
    index_cache_bytes=5_000,
)
"""So small that a few dozen rows flush, merge, cut runs into segments and recycle log files."""

Model = dict[bytes, bytes]
Rows = list[tuple[bytes, bytes | None]]


async def open_store(
    files: Files, options: MetadataOptions = SMALL, directory: str = DIRECTORY
) -> MetadataStore:
    return await MetadataStore.open(files, directory, SimClock(), SimEntropy(), options)


def everything(store: MetadataStore, *, latest: bool = False) -> Model:
    """All rows by a scan; also checks that it ascends."""
    keys: list[bytes] = []
    values: list[bytes] = []
    for some_keys, some_values in store.scan(b"", b"\xff" * 40, latest=latest):
        keys += some_keys
        values += some_values
    assert keys == sorted(set(keys)), "a scan must ascend without repeats"
    return dict(zip(keys, values, strict=True))


def apply(model: Model, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
    for key, value in rows:
        if value is None:
            model.pop(key, None)
        else:
            model[key] = value


def drop(model: Model, start: bytes, end: bytes) -> None:
    for key in [key for key in model if start <= key < end]:
        del model[key]


def check_reads(store: MetadataStore, model: Model, absent: Iterable[bytes] = ()) -> None:
    """Every way to read agrees with the model."""
    assert everything(store) == model
    for key, value in model.items():
        assert store.get(key) == value
        suffix = 4 if key[0] == SUFFIXED else 0
        prefix = key[: len(key) - suffix]
        expected = sorted(
            (k, v) for k, v in model.items() if k.startswith(prefix) and len(k) == len(key)
        )
        assert store.with_prefix(prefix) == expected
    for key in absent:
        if key not in model:
            assert store.get(key) is None


__all__ = [
    "DIRECTORY",
    "SMALL",
    "Model",
    "Rows",
    "apply",
    "check_reads",
    "drop",
    "everything",
    "open_store",
]

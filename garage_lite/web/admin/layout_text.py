"""The computation of a layout told in lines of text, as Garage prints it."""

from __future__ import annotations

from garage_lite.core.layout.statistics import Statistics, ZoneStatistics
from garage_lite.units import format_size


def message_lines(found: Statistics, metadata_copies: int) -> list[str]:
    """The `message` of PreviewClusterLayoutChanges and ApplyClusterLayout."""
    size = _size(found.partition_size)
    if found.previous_partition_size is not None:
        size += f" ({_size(found.previous_partition_size)} in previous layout)"
    lines = [
        "==== COMPUTATION OF A NEW PARTITION ASSIGNATION ====",
        "",
        f"Partitions are replicated {found.replication_factor} times on at least"
        f" {found.effective_zone_redundancy} distinct zones.",
        *(
            [f"These are the blocks; metadata is replicated {metadata_copies} times."]
            if metadata_copies != found.replication_factor
            else []
        ),
        "",
        f"Optimal partition size:                     {size}",
    ]
    if found.low_partition_size:
        lines.append(
            "WARNING: The partition size is low (< 100), make sure the capacities of your nodes"
            " are correct and are of at least a few MB"
        )
    lines += [
        f"Usable capacity / total cluster capacity:   {_size(found.usable_capacity)} /"
        f" {_size(found.total_capacity)} ({_share(found.usable_capacity, found.total_capacity)} %)",
        f"Effective capacity (replication factor {found.replication_factor}):"
        f"  {_size(found.effective_capacity)}",
    ]
    if found.low_usable_capacity:
        lines += [
            "",
            "If the percentage is too low, it might be that the cluster topology and redundancy"
            " constraints are forcing the use of nodes/zones with small storage capacities.",
            "You might want to move storage capacity between zones or relax the redundancy"
            " constraint.",
            "See the detailed statistics below and look for saturated nodes/zones.",
        ]
    lines.append("")
    if found.total_moved_partitions is not None:
        lines += [
            f"A total of {found.total_moved_partitions} new copies of partitions need to be"
            " transferred.",
            "",
        ]
    return [*lines, *aligned([row for zone in found.zones for row in _zone_rows(zone)])]


def _zone_rows(zone: ZoneStatistics) -> list[list[str]]:
    rows = [[zone.name, "Tags", "Partitions", "Capacity", "Usable capacity"]]
    rows += [
        [
            f"  {node.id.hex()[:16]}",
            f"[{','.join(node.tags)}]",
            f"{node.stored_partitions} ({node.new_partitions} new)",
            _size(node.total_capacity),
            f"{_size(node.usable_capacity)} ({_share(node.usable_capacity, node.total_capacity)}%)",
        ]
        for node in zone.nodes
    ]
    usable = _share(zone.usable_capacity, zone.total_capacity)
    total = [
        "  TOTAL",
        "",
        f"{zone.total_replicated_partitions} ({zone.unique_partitions} unique)",
        _size(zone.total_capacity),
        f"{_size(zone.usable_capacity)} ({usable}%)",
    ]
    return [*rows, total, [""]]


def aligned(rows: list[list[str]]) -> list[str]:
    """Rows as lines whose columns stand under each other, two spaces between."""
    widths = [0] * max(map(len, rows), default=0)
    for row in rows:
        for column, cell in enumerate(row):
            widths[column] = max(widths[column], len(cell))
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in rows
    ]


def _size(size: int) -> str:
    return format_size(size, binary=True)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole if whole else 0:.1f}"

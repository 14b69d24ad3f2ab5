"""What a benchmark says: figures of a server process, each beside this machine's own speed.

CPU time is read from /proc around a fixed amount of work, so that a slow client or a busy machine
spoils it little; the calibration, taken in the same run, tells how fast this machine was then.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

GB = 1e9
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


# --- the machine


@dataclass(frozen=True)
class Calibration:
    """How fast this machine is now; the divisors of every ratio."""

    hash_seconds_per_gb: float
    """CPU, for MD5 and SHA-256 of the same bytes: what a signed upload can't do without."""
    python_microseconds: float
    """CPU, for one turn of a fixed loop of interpreted work, about a hundred steps of it."""
    disk_seconds_per_gb: float
    """CPU, to write files of 1 MiB and sync them. Where the host takes back memory that a virtual
    machine does not use, fresh pages for a file cost five times what used ones do, and a big
    upload follows."""


def calibrate() -> Calibration:
    """About one second of work."""
    block = bytes(range(256)) * 4096
    before = time.process_time()
    for _ in range(128):
        hashlib.sha256(block)
        hashlib.md5(block, usedforsecurity=False)
    hashed = (time.process_time() - before) / (128 * len(block) / GB)
    turns = 20_000
    before = time.process_time()
    for turn in range(turns):
        _interpreted_work(turn)
    interpreted = (time.process_time() - before) / turns * 1e6
    return Calibration(hashed, interpreted, _disk_seconds_per_gb(block))


def _disk_seconds_per_gb(block: bytes) -> float:
    files = 64
    with tempfile.TemporaryDirectory() as directory:
        before = time.process_time()
        for number in range(files):
            with open(f"{directory}/{number}", "wb", buffering=0) as file:
                file.write(block)
                os.fdatasync(file)
        return (time.process_time() - before) / (files * len(block) / GB)


def _interpreted_work(turn: int) -> int:
    headers = {f"header-{n}": f"value {turn} {n}" for n in range(12)}
    joined = "".join(f"{name}:{value.strip()}\n" for name, value in sorted(headers.items()))
    return len(joined.encode().split(b"\n"))


# --- the server's process


class Processes:
    """A server, by the ids of its processes; their descendants are counted in."""

    def __init__(self, pids: Sequence[int]) -> None:
        self.roots = list(pids)

    def all(self) -> list[int]:
        children: dict[int, list[int]] = {}
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError):
                    parent = int(_stat(int(name))[1])
                    children.setdefault(parent, []).append(int(name))
        found = list(self.roots)
        for pid in found:
            found += children.get(pid, [])
        return found

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        ticks = 0
        for pid in self.all():
            with contextlib.suppress(OSError):
                fields = _stat(pid)
                ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS_PER_SECOND

    def memory_mib(self, name: str, pids: Sequence[int] | None = None) -> float:
        """A field of /proc/PID/status in MiB, summed: VmHWM, VmRSS, RssAnon."""
        total = 0
        for pid in pids or self.all():
            with contextlib.suppress(OSError):
                found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
                total += int(found[1]) if found else 0
        return total / 1024

    def forget_peak(self) -> None:
        """Begin VmHWM anew (needs the same user or root)."""
        for pid in self.all():
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()


class AnonymousPeak(threading.Thread):
    """Samples the memory that can't be evicted, 20 times a second."""

    def __init__(self, server: Processes) -> None:
        super().__init__(daemon=True)
        self.server, self.pids, self.done = server, server.all(), threading.Event()
        self.mib = 0.0

    def run(self) -> None:
        while True:
            self.mib = max(self.mib, self.server.memory_mib("RssAnon", self.pids))
            if self.done.wait(0.05):
                return


# --- a phase


@dataclass
class Result:
    """One phase of one run. Zero: not measured in this phase."""

    name: str
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    requests: int = 0
    """Or keys, for a listing."""
    payload_bytes: int = 0
    latencies: list[float] = field(default_factory=list)
    """Seconds each."""
    machine: Calibration | None = None
    """As it was then."""
    rss_peak_mib: float = 0.0
    anonymous_peak_mib: float = 0.0

    @property
    def cost(self) -> float:
        """CPU seconds for a byte, or for a request where bytes don't count."""
        return self.cpu_seconds / (self.payload_bytes or self.requests or 1)

    def percentile_ms(self, share: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1000 if ordered else 0.0


def line(result: Result, machine: Calibration) -> str:
    """Throughput, CPU cost (and its ratio to the calibration), latencies, memory."""
    words = [f"{result.name:<22}{result.wall_seconds:8.2f} s"]
    if result.payload_bytes:
        gb = result.payload_bytes / GB
        cost = result.cpu_seconds / gb
        words.append(f"{gb * 1000 / result.wall_seconds:8.0f} MB/s  {cost:6.2f} CPU-s/GB")
        words.append(f"({cost / machine.hash_seconds_per_gb:5.2f} x hashing)")
    elif result.requests:
        cost = result.cpu_seconds / result.requests * 1e6
        words.append(f"{result.requests / result.wall_seconds:8.0f} /s    {cost:6.0f} CPU-us each")
        words.append(f"({cost / machine.python_microseconds:5.2f} x turns)  ")
    if result.latencies:
        p50, p99 = result.percentile_ms(0.5), result.percentile_ms(0.99)
        words.append(f"p50 {p50:7.2f} p99 {p99:7.2f} max {result.percentile_ms(1):7.2f} ms")
    words.append(f"peak {result.rss_peak_mib:4.0f} MiB, anon {result.anonymous_peak_mib:4.0f}")
    return "  ".join(words)


class Report:
    """Runs phases, prints each as it ends, and can keep them as JSON."""

    def __init__(self, server: Processes) -> None:
        self.server = server
        self.results: list[Result] = []
        self.calibrate()

    def calibrate(self) -> None:
        """Once more, for the phases from now on."""
        self.machine = calibrate()
        print(
            f"this machine: {self.machine.hash_seconds_per_gb:.2f} CPU-s/GB hashing, "
            f"{self.machine.python_microseconds:.1f} us a turn, "
            f"{self.machine.disk_seconds_per_gb:.2f} CPU-s/GB durable files"
        )

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[Result]:
        """Measure what happens inside; the caller fills in requests, bytes, latencies."""
        result = Result(name, machine=self.machine)
        self.server.forget_peak()
        peak = AnonymousPeak(self.server)
        peak.start()
        cpu, began = self.server.cpu_seconds(), time.perf_counter()
        yield result
        result.wall_seconds = time.perf_counter() - began
        result.cpu_seconds = self.server.cpu_seconds() - cpu
        peak.done.set()
        peak.join()
        result.rss_peak_mib = self.server.memory_mib("VmHWM")
        result.anonymous_peak_mib = peak.mib
        self.results.append(result)
        print(line(result, self.machine), flush=True)

    def tell_least(self) -> None:
        """Of phases that were run more than once, the run that cost least."""
        runs: dict[str, list[Result]] = {}
        for result in self.results:
            runs.setdefault(result.name, []).append(result)
        for same in runs.values():
            if len(same) > 1:
                least = min(same, key=lambda result: result.cost)
                print(f"least of {len(same)}: {line(least, least.machine or self.machine)}")

    def save(self, path: Path) -> None:
        phases = [asdict(result) | {"latencies": None} for result in self.results]
        for phase, result in zip(phases, self.results, strict=True):
            phase["percentiles_ms"] = {
                str(share): round(result.percentile_ms(share), 3) for share in (0.5, 0.9, 0.99, 1)
            }
            del phase["latencies"]
        document = {"machine": asdict(self.machine), "phases": phases}
        path.write_text(json.dumps(document, indent=1) + "\n")

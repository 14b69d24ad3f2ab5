"""kill -9 in the middle of a mixed load, again and again: nothing acknowledged is lost, nothing
deleted comes back."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.durability.load import ABSENT, Owed, Writer, listed, settle
from tests.process import REGION, Key, NodeProcess
from tests.sigv4 import Client, Signer

KILLS = 50
WRITERS = 4
KEYS_PER_WRITER = 12
LOAD_SECONDS = (0.05, 0.5)
BUCKET = "durable"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    node = NodeProcess(tmp_path)
    yield node
    node.kill()


def connect(node: NodeProcess, key: Key) -> Client:
    host = node.endpoint.removeprefix("http://")
    return Client(node.endpoint, Signer(host, key.access_key, key.secret_key, REGION))


def load_until_killed(node: NodeProcess, writers: list[Writer], seconds: float) -> None:
    for writer in writers:
        writer.start()
    time.sleep(seconds)
    node.kill()
    for writer in writers:
        writer.stopping.set()
        writer.join()
    refused = [writer.refused for writer in writers if writer.refused is not None]
    assert not refused, f"{refused}\n{node.log_tail()}"


def check(node: NodeProcess, key: Key, owed: dict[str, Owed]) -> None:
    client = connect(node, key)
    wrong = settle(client, BUCKET, owed)
    present = sorted(name for name, debt in owed.items() if debt.states != {ABSENT})
    keys = listed(client, BUCKET)
    client.close()
    assert not wrong, f"{wrong}\n{node.log_tail()}"
    assert keys == present


@pytest.mark.timeout(400)
def test_fifty_kills_lose_nothing_acknowledged(node: NodeProcess) -> None:
    chance = random.Random(50)
    node.start()
    node.lay_out()
    key = node.create_key("writer")
    client = connect(node, key)
    assert client.call("PUT", BUCKET).status == 200
    client.close()
    owed = [
        {f"{writer}/{number:02}": Owed() for number in range(KEYS_PER_WRITER)}
        for writer in range(WRITERS)
    ]
    everything = {name: debt for part in owed for name, debt in part.items()}
    acknowledged = 0
    for kill in range(KILLS):
        writers = [
            Writer(f"{kill}-{number}", connect(node, key), BUCKET, part)
            for number, part in enumerate(owed)
        ]
        load_until_killed(node, writers, chance.uniform(*LOAD_SECONDS))
        acknowledged += sum(writer.acknowledged for writer in writers)
        node.start()
        check(node, key, everything)
    node.stop()
    assert acknowledged > KILLS * WRITERS, f"hardly any load: {acknowledged} operations"

"""The power is cut while a node makes its key: it starts again, and never as somebody else."""

from __future__ import annotations

from garage_lite.core.cluster.identity import (
    load_node_key,
    load_or_create_node_key,
    read_node_id,
)
from garage_lite.core.ids import NodeId
from tests.sim.files import SimFiles
from tests.sim.loop import SimEntropy

AT = "/node/meta"


def test_i9_a_key_is_there_whole_or_not_at_all_and_the_same_once_it_was_told() -> None:
    files = SimFiles()
    told: NodeId = load_or_create_node_key(files, AT, SimEntropy(1)).node
    files.mark(told)
    states = 0
    for crash in files.crashes(seed=1, variants=6):
        before = load_node_key(crash.files, AT)  # raises if half a key shows
        assert before is None or before.node == told
        assert before is not None or not crash.marks
        assert read_node_id(crash.files, AT) in (None, told)
        again = load_or_create_node_key(crash.files, AT, SimEntropy(2)).node
        assert before is None or again == told
        assert load_or_create_node_key(crash.files, AT, SimEntropy(3)).node == again
        assert read_node_id(crash.files, AT) == again
        states += 1
    assert states > 30

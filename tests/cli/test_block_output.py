"""What the commands on blocks print, letter by letter."""

from __future__ import annotations

from typing import Any

from .conftest import Cli, FakeNode
from .test_cluster_output import alone
from .test_output import text


def test_blocks(node: FakeNode, cli: Cli) -> None:
    seen = {"refcount": 1, "errorCount": 3, "lastTrySecsAgo": 90, "nextTryInSecs": 7200}
    node.answers["ListBlockErrors"] = alone(node, [{"blockHash": "ab" * 32, **seen}])
    assert cli("block", "list-errors")[1] == text(f"""
        Hash{" " * 60}  RC  Errors  Last error    Next try
        {"ab" * 32}  1   3       1 minute ago  in 2 hours
        """)
    node.answers["RetryBlockResync"] = alone(node, {"count": 1})
    _, out, _ = cli("block", "retry-now", "--all")
    assert out == "1 blocks returned in queue for a retry now (check logs to see results)\n"
    assert cli("block", "retry-now")[0] == cli("block", "retry-now", "--all", "ab")[0] == 1


def test_block_info_and_purge(node: FakeNode, cli: Cli) -> None:
    def version(number: int, link: Any, *, dead: bool = False) -> dict[str, Any]:
        gone = {"refDeleted": dead, "versionDeleted": dead, "garbageCollected": False}
        return {"versionId": f"{number:032x}"[::-1], "backlink": link, **gone}

    user = {"bucketId": "cd" * 32, "key": "a/b"}
    versions = [
        version(1, {"object": user}),
        version(2, {"upload": {"uploadId": "ef" * 16, **user}}, dead=True),
        version(3, None, dead=True),
    ]
    node.answers["GetBlockInfo"] = alone(
        node, {"blockHash": "ab" * 32, "refcount": 1, "versions": versions}
    )
    assert cli("block", "info", "abab")[1] == text(f"""
        ==== BLOCK INFORMATION ====
        Block hash:  {"ab" * 32}
        Refcount:    1

        ==== REFERENCES TO THIS BLOCK ====
        Status   Version           Bucket            Key  MPU
        active   1000000000000000  cdcdcdcdcdcdcdcd  a/b
        deleted  2000000000000000  cdcdcdcdcdcdcdcd  a/b  efefefefefefefef
        deleted  3000000000000000
        """)
    assert node.last("GetBlockInfo")["body"] == {"blockHash": "abab"}
    versions[0]["versionDeleted"] = True
    assert "inconsistencies" in cli("block", "info", "abab")[1]
    assert cli("block", "purge", "ab" * 32)[0] == 1
    done = {"blocksPurged": 1, "blockRefsPurged": 2, "versionsDeleted": 3}
    node.answers["PurgeBlocks"] = alone(node, {**done, "objectsDeleted": 4, "uploadsDeleted": 5})
    assert cli("block", "purge", "--yes", "ab" * 32)[1] == (
        "Purged 1 blocks: deleted 2 block refs, 3 versions, 4 objects, 5 multipart uploads\n"
    )
    assert node.last("PurgeBlocks")["body"] == ["ab" * 32]

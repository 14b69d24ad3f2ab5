"""What status, layout, health, stats and maintenance print, letter by letter."""

from __future__ import annotations

from typing import Any

import pytest

from garage_lite.core.wire.messages import PeerFailed

from .conftest import Cli, FakeNode
from .test_output import text

ONE = "915ea2a3ce71ff0953d198852c5e602fe4b013f904ff3ff7709ce9b8c8170343"
TWO = "b90a0fe8e46f883c" + "00" * 24
ROLE = {"zone": "local", "tags": [], "capacity": 10**10}


def up(identifier: str, **more: Any) -> dict[str, Any]:
    start = {"id": identifier, "garageVersion": "0.1.0", "addr": "127.0.0.1:3901"}
    return {**start, "hostname": "localhost", "isUp": True, "draining": False, **more}


def layout(**more: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "roles": [{"id": ONE, **ROLE, "usableCapacity": 10**10, "storedPartitions": 256}],
        "parameters": {"zoneRedundancy": "maximum"},
        "partitionSize": 39_062_500,
        "stagedRoleChanges": [],
        "stagedParameters": None,
        **more,
    }


@pytest.fixture
def quiet(node: FakeNode) -> FakeNode:
    """A node with a role, and nothing staged."""
    space = {"available": 1_319_413_953_331, "total": 1_759_218_604_441}
    node.answers["GetClusterLayout"] = layout()
    node.answers["GetClusterStatus"] = {
        "layoutVersion": 1,
        "nodes": [up(ONE, role=ROLE, dataPartition=space, resyncQueueLen=0)],
    }
    return node


def test_status(quiet: FakeNode, cli: Cli) -> None:
    assert cli("status")[1] == text("""
        ==== HEALTHY NODES ====
        ID                Hostname   Address         Tags  Zone   Capacity  DataAvail        ResyncQueue  Version
        915ea2a3ce71ff09  localhost  127.0.0.1:3901  []    local  9.3 GiB   1.2 TiB (75.0%)  0            0.1.0
        """)  # noqa: E501 - as wide as it is


def test_status_of_nodes_without_roles_and_without_life(quiet: FakeNode, cli: Cli) -> None:
    gateway = {"zone": "far", "tags": ["a", "b"], "capacity": None}
    down = {"isUp": False, "addr": None, "lastSeenSecsAgo": 7300}
    quiet.answers["GetClusterStatus"]["nodes"] = [
        up(ONE),
        up(TWO),
        up("cc" * 32, role=gateway, hostname=None),
        up("dd" * 32, role=ROLE, **down),
        up("ee" * 32, **{**down, "lastSeenSecsAgo": None, "draining": True}),
    ]
    quiet.answers["GetClusterLayout"] = layout(stagedRoleChanges=[{"id": TWO, **ROLE}])
    assert cli("status")[1] == text("""
        ==== HEALTHY NODES ====
        ID                Hostname   Address         Tags   Zone  Capacity          DataAvail  ResyncQueue  Version
        915ea2a3ce71ff09  localhost  127.0.0.1:3901               NO ROLE ASSIGNED             N/A          0.1.0
        b90a0fe8e46f883c  localhost  127.0.0.1:3901               pending...                   N/A          0.1.0
        cccccccccccccccc  ?          127.0.0.1:3901  [a,b]  far   gateway           N/A        N/A          0.1.0

        ==== FAILED NODES ====
        ID                Hostname   Tags  Zone   Capacity             Last seen
        dddddddddddddddd  localhost  []    local  9.3 GiB              2 hours ago
        eeeeeeeeeeeeeeee  localhost               draining metadata..  never seen

        Your cluster is expecting to drain data from nodes that are currently unavailable.
        If these nodes are definitely dead, please review the layout history with
        `garage layout history` and use `garage layout skip-dead-nodes` to force progress.

        ==== STAGED ROLE CHANGES ====
        ID                Tags  Zone   Capacity
        b90a0fe8e46f883c  []    local  9.3 GiB


        Please use `garage layout show` to check the proposed new layout and apply it.

        """)  # noqa: E501 - as wide as it is


def test_nodes_that_are_let_go(quiet: FakeNode, cli: Cli) -> None:
    nodes = quiet.answers["GetClusterStatus"]["nodes"]
    nodes += [up(TWO, drained=False), up("cc" * 32, drained=True), up("dd" * 32)]
    _, out, _ = cli("status")
    roles = [
        " ".join(line.split("3901")[1].split()[:3]) for line in out.splitlines() if "3901" in line
    ]
    assert [role.split(" N/A")[0] for role in roles[1:]] == [
        "draining blocks..",
        "NO ROLE ASSIGNED",
        "NO ROLE ASSIGNED",
    ]
    told = text("""

        These nodes have no role any more and still hold blocks that others should have: b90a0fe8e46f883c

        These nodes have given everything away and can be turned off: cccccccccccccccc
        """)  # noqa: E501 - as wide as it is
    assert out.endswith(told)
    found = {"currentVersion": 2, "minAck": 2, "versions": [], "updateTrackers": None}
    quiet.answers["GetClusterLayoutHistory"] = found
    assert cli("layout", "history")[1].endswith(told)


def test_layout_show(quiet: FakeNode, cli: Cli) -> None:
    assert cli("layout", "show")[1] == text("""
        ==== CURRENT CLUSTER LAYOUT ====
        ID                Tags  Zone   Capacity  Usable capacity
        915ea2a3ce71ff09  []    local  9.3 GiB   9.3 GiB (100.0%)

        Zone redundancy: maximum

        Current cluster layout version: 1
        """)


def test_layout_show_with_changes(node: FakeNode, cli: Cli) -> None:
    staged = [{"id": ONE, **ROLE}, {"id": TWO, "remove": True}]
    redundancy = {"zoneRedundancy": {"atLeast": 2}}
    node.answers["GetClusterLayout"] = layout(
        version=0, roles=[], stagedRoleChanges=staged, stagedParameters=redundancy
    )
    node.answers["PreviewClusterLayoutChanges"] = {
        "message": ["==== COMPUTATION ====", ""],
        "newLayout": layout(parameters=redundancy),
    }
    assert cli("layout", "show")[1] == text("""
        ==== CURRENT CLUSTER LAYOUT ====
        No nodes currently have a role in the cluster.
        See `garage status` to view available nodes.

        Current cluster layout version: 0

        ==== STAGED ROLE CHANGES ====
        ID                Tags     Zone   Capacity
        915ea2a3ce71ff09  []       local  9.3 GiB
        b90a0fe8e46f883c  REMOVED

        Zone redundancy: 2

        ==== NEW CLUSTER LAYOUT AFTER APPLYING CHANGES ====
        ID                Tags  Zone   Capacity  Usable capacity
        915ea2a3ce71ff09  []    local  9.3 GiB   9.3 GiB (100.0%)

        Zone redundancy: 2

        ==== COMPUTATION ====

        To enact the staged role changes, type:

            garage layout apply --version 1

        You can also revert all proposed changes with: garage layout revert
        """)
    node.answers["PreviewClusterLayoutChanges"] = {"error": "too few nodes"}
    assert "Error while trying to compute the assignment: too few nodes" in cli("layout", "show")[1]


def test_layout_assign(quiet: FakeNode, cli: Cli) -> None:
    quiet.answers["GetClusterStatus"]["nodes"].append(up(TWO))
    quiet.answers["UpdateClusterLayout"] = layout()
    for line, role in (
        ("b90a -z z -c 1G", {"id": TWO, "zone": "z", "capacity": 10**9, "tags": []}),
        ("B90A -z z -g -t a -t b", {"id": TWO, "zone": "z", "capacity": None, "tags": ["a", "b"]}),
        ("915e -t x", {"id": ONE, "zone": "local", "capacity": 10**10, "tags": ["x"]}),
        ("915e -g", {"id": ONE, "zone": "local", "capacity": None, "tags": []}),
    ):
        assert cli("layout", "assign", *line.split())[1] == text("""
            Role changes are staged but not yet committed.
            Use `garage layout show` to view staged role changes,
            and `garage layout apply` to enact staged changes.
            """)
        assert quiet.last("UpdateClusterLayout") == {"roles": [role]}
    assert cli("layout", "assign", "b90a", "--replace", "915e", "-z", "z", "-c", "1G")[0] == 0
    assert quiet.last("UpdateClusterLayout")["roles"][0] == {"id": ONE, "remove": True}
    assert cli("layout", "remove", "915e")[0] == 0
    assert quiet.last("UpdateClusterLayout") == {"roles": [{"id": ONE, "remove": True}]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("assign ff -z z -c 1G", "0 nodes match 'ff'"),
        ("assign b9 -c 1G", "Please specify a zone with the -z flag"),
        ("assign b9 -z z", "Please specify a capacity with the -c flag"),
        ("assign b9 -z z -c 1G -g", "Please specify only -c or -g"),
        ("assign b9 -z z -c 0", "-c: a capacity of 0"),
        ("assign b9 -z z -c lots", "-c: 'lots' is no size"),
        ("config", "Please specify an action for `garage layout config`"),
        ("config -r some", "invalid zone redundancy value"),
        ("apply", "Please pass the new layout version number"),
        ("apply --version x", "--version: expected a number, got 'x'"),
        ("revert", "Please add the --yes flag to run the layout revert operation"),
    ],
)
def test_layout_errors(quiet: FakeNode, cli: Cli, line: str, message: str) -> None:
    quiet.answers["GetClusterStatus"]["nodes"].append(up(TWO))
    code, _, err = cli("layout", *line.split())
    assert code == 1 and err.startswith(f"Error: {message}")
    assert "UpdateClusterLayout" not in dict(quiet.asked)


def test_layout_apply_config_revert(node: FakeNode, cli: Cli) -> None:
    node.answers |= {
        "ApplyClusterLayout": {"message": ["a line"], "layout": layout()},
        "UpdateClusterLayout": layout(),
        "RevertClusterLayout": layout(),
    }
    assert cli("layout", "apply", "--version", "1")[1] == text("""
        a line
        New cluster layout with updated role assignment has been applied in cluster.
        Data will now be moved around between nodes accordingly.
        """)
    assert node.last("ApplyClusterLayout") == {"version": 1}
    for value, sent, said in (("2", {"atLeast": 2}, "2"), ("none", "maximum", "maximum")):
        _, out, _ = cli("layout", "config", "-r", value)
        assert out == f"The zone redundancy parameter has been set to '{said}'.\n"
        assert node.last("UpdateClusterLayout")["parameters"] == {"zoneRedundancy": sent}
    _, out, _ = cli("layout", "revert", "--yes")
    assert out == "All proposed role changes in cluster layout have been canceled.\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            PeerFailed("InvalidRequest", "Layout version 2 was applied from another node", 400),
            "InvalidRequest (400): Layout version 2 was applied from another node",
        ),
        (
            PeerFailed("ServiceUnavailable", "only 1 can be reached", 503),
            "ServiceUnavailable (503): only 1 can be reached",
        ),
    ],
)
def test_layout_apply_that_was_not_done(
    node: FakeNode, cli: Cli, error: PeerFailed, line: str
) -> None:
    def answer(parameters: Any) -> Any:
        raise error

    node.answers["ApplyClusterLayout"] = answer
    code, out, err = cli("layout", "apply", "--version", "2")
    assert (code, out, err) == (1, "", f"Error: ApplyClusterLayout returned {line}\n")


def test_layout_history(node: FakeNode, cli: Cli) -> None:
    versions = [{"version": 2, "status": "Current", "storageNodes": 3, "gatewayNodes": 0}]
    found = {"currentVersion": 2, "minAck": 2, "versions": versions, "updateTrackers": None}
    node.answers["GetClusterLayoutHistory"] = found
    node.answers["GetClusterStatus"] = {"nodes": [up(ONE)]}
    assert cli("layout", "history")[1].startswith(
        text("""
            ==== LAYOUT HISTORY ====
            Version  Status   Storage nodes  Gateway nodes
            #2       Current  3              0

            Your cluster is currently in a stable state with a single live layout version.
            """)
    )
    node.answers["GetClusterStatus"] = {"nodes": [up(ONE), up(TWO, isUp=False)]}
    trackers = {
        TWO: {"ack": 2, "sync": 1, "syncAck": 1},
        ONE: {"ack": 2, "sync": 1, "syncAck": 1},
    }
    node.answers["GetClusterLayoutHistory"] = {**found, "updateTrackers": trackers}
    _, out, _ = cli("layout", "history")
    assert out.endswith(
        text("""
        ==== UPDATE TRACKERS ====
        Several layout versions are currently live in the cluster, and data is being migrated.
        This is the internal data that Garage stores to know which nodes have what data.

        Node              Ack  Sync  Sync_ack
        915ea2a3ce71ff09  #2   #1    #1
        b90a0fe8e46f883c  #2   #1    #1

        Waiting for these nodes to sync their data to version #2: 915ea2a3ce71ff09, b90a0fe8e46f883c (not connected)

        If some nodes are not catching up to the latest layout version in the update trackers,
        it might be because they are offline or unable to complete a sync successfully.
        You may force progress using `garage layout skip-dead-nodes --version 2 --allow-missing-data`.
        """)  # noqa: E501 - as wide as it is
    )
    trackers[TWO]["ack"] = 1
    node.answers["GetClusterLayoutHistory"]["minAck"] = 1
    _, out, _ = cli("layout", "history")
    assert "to acknowledge version #2: b90a0fe8e46f883c (not connected)\n" in out
    assert out.endswith("using `garage layout skip-dead-nodes --version 2`\n")


def test_skip_dead_nodes(node: FakeNode, cli: Cli) -> None:
    node.answers["ClusterLayoutSkipDeadNodes"] = {"ackUpdated": [ONE], "syncUpdated": [ONE, TWO]}
    _, out, _ = cli("layout", "skip-dead-nodes", "--version", "3", "--allow-missing-data")
    assert out == text("""
        Increased the ACK tracker for node 915ea2a3ce71ff09
        Increased the SYNC tracker for node 915ea2a3ce71ff09
        Increased the SYNC tracker for node b90a0fe8e46f883c
        """)
    assert node.last("ClusterLayoutSkipDeadNodes") == {"version": 3, "allowMissingData": True}
    node.answers["ClusterLayoutSkipDeadNodes"] = {"ackUpdated": [], "syncUpdated": []}
    code, _, err = cli("layout", "skip-dead-nodes", "--version", "3")
    assert code == 1 and err.startswith("Error: Nothing was done, try passing the")
    assert node.last("ClusterLayoutSkipDeadNodes") == {"version": 3, "allowMissingData": False}
    code, _, err = cli("layout", "skip-dead-nodes", "--version", "3", "--allow-missing-data")
    assert code == 1 and err.startswith("Error: Sorry, there is nothing I can do for you.")


def test_a_named_node(node: FakeNode, cli: Cli) -> None:
    node.answers["ListWorkers"] = {"success": {TWO: []}, "error": {}}
    node.answers["GetWorkerVariable"] = {"success": {TWO: {"a": "1"}}, "error": {}}
    assert cli("worker", "list", "--node", "b90a")[0] == 0
    assert node.last("ListWorkers")["node"] == "b90a"
    assert cli("worker", "get", "--node=b90a", "a")[1] == "b90a0fe8e46f883c  a  1\n"
    assert cli("worker", "get", "-a", "--node", "b90a") == (
        1,
        "",
        "Error: Please specify only --all-nodes or --node\n",
    )


def test_health(node: FakeNode, cli: Cli) -> None:
    nodes = {"knownNodes": 3, "connectedNodes": 2, "storageNodes": 3, "storageNodesUp": 2}
    partitions = {"partitions": 256, "partitionsQuorum": 256, "partitionsAllOk": 0}
    node.answers["GetClusterHealth"] = {"status": "degraded", **nodes, **partitions}
    assert cli("health") == (
        0,
        text("""
            Cluster health:            DEGRADED
            Known nodes:               3
            Connected nodes:           2
            Storage nodes:             3
            Storage nodes up:          2
            Partitions:                256
            Partitions with quorum:    256
            Fully healthy partitions:  0
            """),
        "",
    )
    node.answers["GetClusterHealth"]["status"] = "unavailable"
    assert cli("health", "-q") == (1, "", "")


def test_stats(node: FakeNode, cli: Cli) -> None:
    success = {ONE: {"freeform": "Version: 1\n"}}
    node.answers["GetNodeStatistics"] = {"success": success, "error": {TWO: "not connected"}}
    node.answers["GetClusterStatistics"] = {"freeform": "Buckets: 0\n"}
    assert cli("stats", "-a")[1] == text("""
        ==== NODE [915ea2a3ce71ff09] ====
        Version: 1

        ==== NODE [b90a0fe8e46f883c] ====
        Error: not connected

        ==== CLUSTER STATISTICS ====
        Buckets: 0

        """)
    assert node.last("GetNodeStatistics")["node"] == "*"


WORKER = {
    "id": 2,
    "name": "Block scrub worker",
    "state": {"throttled": {"durationSecs": 1.5}},
    "errors": 1,
    "consecutiveErrors": 0,
    "lastError": {"message": "disk", "secsAgo": 65},
    "tranquility": 4,
    "progress": "12.50%",
    "queueLength": None,
    "persistentErrors": None,
    "freeform": ["two", "lines"],
}


def alone(node: FakeNode, answer: Any) -> dict[str, Any]:
    return {"success": {node.id: answer}, "error": {}}


def test_workers(node: FakeNode, cli: Cli) -> None:
    idle = {"id": 1, "name": "Block resync worker #1", "state": "idle", "errors": 0}
    node.answers["ListWorkers"] = alone(node, [idle, WORKER])
    assert cli("worker", "list", "-b")[1] == text("""
        TID  State  Name                    Tranq  Done    Queue  Errors  Consec  Last
        2    Busy*  Block scrub worker      4      12.50%  -      1       0       1 minute ago
        1    Idle   Block resync worker #1  -      -       -      -       -       |
        """)
    body = {"busyOnly": True, "errorOnly": False}
    assert node.last("ListWorkers") == {"node": node.id, "body": body}
    node.answers["GetWorkerInfo"] = alone(node, WORKER)
    assert cli("worker", "info", "2")[1] == text("""
        Task id:           2
        Worker name:       Block scrub worker
        Worker state:      Busy (throttled, paused for 1.500s)
        Tranquility:       4

        Total errors:      1
        Consecutive errs:  0
        Last error:        disk
        Last error time:   1 minute ago

        Progress:          12.50%
        Message:           two
                           lines
        """)
    assert cli("worker", "info", "x")[0] == 1


def test_worker_variables(node: FakeNode, cli: Cli) -> None:
    node.answers["GetWorkerVariable"] = {
        "success": {ONE: {"scrub-tranquility": "4", "resync-tranquility": "2"}},
        "error": {TWO: "not connected"},
    }
    assert cli("worker", "get", "-a") == (
        0,
        text("""
            915ea2a3ce71ff09  resync-tranquility  2
            915ea2a3ce71ff09  scrub-tranquility   4
            """),
        "b90a0fe8e46f883c: error: not connected\n",
    )
    node.answers["SetWorkerVariable"] = alone(node, {"variable": "v", "value": "3"})
    assert cli("worker", "set", "v", "3")[1] == f"{node.id[:16]}  v  3\n"
    assert node.last("SetWorkerVariable")["body"] == {"variable": "v", "value": "3"}


def test_repair_and_snapshot(node: FakeNode, cli: Cli) -> None:
    node.answers["LaunchRepairOperation"] = alone(node, None)
    node.answers["CreateMetadataSnapshot"] = alone(node, None)
    for line, sent in (
        ("--yes blocks", "blocks"),
        ("mpu --yes", "multipartUploads"),
        ("--yes scrub pause", {"scrub": "pause"}),
    ):
        assert cli("repair", *line.split())[1] == f"{node.id[:16]}  Repair launched\n"
        assert node.last("LaunchRepairOperation")["body"] == {"repairType": sent}
    for line, message in (
        ("blocks", "Please add --yes to start the repair operation"),
        ("--yes all", "unknown repair 'all'"),
        ("--yes scrub", "expected: repair scrub start|pause|resume|cancel"),
        ("--yes blocks start", "expected: repair scrub"),
    ):
        assert f"Error: {message}" in cli("repair", *line.split())[2]
    _, out, _ = cli("meta", "snapshot")
    assert out == f"Node              Result\n{node.id[:16]}  Snapshot created\n"
    node.answers["CreateMetadataSnapshot"] = {"success": {}, "error": {TWO: "no room"}}
    code, out, err = cli("meta", "snapshot", "--all")
    assert code == 1 and "b90a0fe8e46f883c  Error: no room\n" in out
    assert err == "Error: 1 nodes returned an error\n"


def test_a_node_that_can_not(node: FakeNode, cli: Cli) -> None:
    node.answers["ListWorkers"] = {"success": {}, "error": {node.id: "Unavailable (503): busy"}}
    assert cli("worker", "list") == (1, "", "Error: Unavailable (503): busy\n")

"""Garage's grammar: options anywhere, short flags joined, errors that help."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

from garage_lite.cli import main
from garage_lite.cli.grammar import COMMANDS, GLOBAL_OPTIONS
from garage_lite.cli.parse import HelpWanted, UsageError, VersionWanted, parse

GRAMMAR = """
server status health stats convert-db json-api completions admin-api-schema repair offline-repair
node id/connect/invite/join/admit/remove
layout assign/remove/config/show/apply/revert/history/skip-dead-nodes
bucket list/info/create/delete/alias/unalias/allow/deny/website/set-quotas
bucket cleanup-incomplete-uploads/inspect-object
key list/info/create/rename/set/delete/delete-expired/allow/deny/import/export-env
admin-token list/info/create/rename/set/delete/delete-expired
worker list/info/get/set
block list-errors/info/retry-now/purge
meta snapshot
"""


def parsed(line: str) -> tuple[str, dict[str, Any]]:
    command, values = parse(line.split(), COMMANDS, GLOBAL_OPTIONS)
    return " ".join(command.path), values


def test_the_whole_grammar_is_known() -> None:
    wanted = set(GRAMMAR.splitlines()[1].split())
    for line in GRAMMAR.splitlines()[2:]:
        group, words = line.split()
        wanted |= {f"{group} {word}" for word in words.split("/")}
    assert {" ".join(path) for path in COMMANDS} == wanted


@pytest.mark.parametrize(
    ("line", "command", "expected"),
    [
        ("-c f status", "status", {"config": "f", "rpc_host": None}),
        ("-h x -s y status", "status", {"rpc_host": "x", "rpc_secret": "y"}),
        ("status --config f", "status", {"config": "f"}),
        ("--rpc-secret-file=f status", "status", {"rpc_secret_file": "f"}),
        ("-cf status", "status", {"config": "f"}),
        ("layout assign a b -z z -c 1G", "layout assign", {"node": ["a", "b"], "capacity": "1G"}),
        ("layout assign -z=z -c1G a", "layout assign", {"zone": "z", "capacity": "1G"}),
        ("-c f layout assign -c 1G a", "layout assign", {"config": "f", "capacity": "1G"}),
        ("layout assign -t a -g -t b n", "layout assign", {"tag": ["a", "b"], "gateway": True}),
        ("layout apply --version 1", "layout apply", {"version": "1"}),
        ("worker list -be", "worker list", {"busy": True, "errors": True}),
        (
            "bucket allow --read b --key k",
            "bucket allow",
            {"bucket": "b", "key": "k", "read": True},
        ),
        ("bucket create -- -odd", "bucket create", {"bucket": "-odd"}),
        ("json-api X -", "json-api", {"endpoint": "X", "json": "-"}),
        ("key create", "key create", {"name": None}),
        ("key import id secret -n name --yes", "key import", {"n": "name", "yes": True}),
        ("repair -a --yes scrub start", "repair", {"what": "scrub", "step": "start", "yes": True}),
        ("repair blocks --yes", "repair", {"what": "blocks", "all_nodes": False}),
        ("node id -q", "node id", {"quiet": True}),
        ("server --single-node", "server", {"single_node": True, "default_bucket": False}),
    ],
)
def test_lines(line: str, command: str, expected: dict[str, Any]) -> None:
    found, values = parsed(line)
    assert found == command
    assert {name: values[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("repiar", "unknown command 'repiar' (did you mean repair?)"),
        ("bucket lits", "unknown command 'bucket lits' (did you mean list?)"),
        ("key new", "unknown command 'key new' (see garage-lite --help)"),
        ("bucket create", "<BUCKET> is missing"),
        ("bucket create a b", "unexpected argument 'b'"),
        ("layout assign -z z", "<NODE> is missing"),
        ("bucket allow b", "--key <KEY> is missing"),
        ("status --nothing", "unknown option --nothing"),
        ("layout assign a --zne z", "unknown option --zne (did you mean --zone?)"),
        ("worker list -bx", "unknown option -x"),
        ("layout assign a -z", "-z needs a value: -z <ZONE>"),
        ("layout assign a -z x -z y", "-z was given twice"),
        ("worker list --busy=1", "--busy takes no value"),
        ("status -c f", "unknown option -c"),
    ],
)
def test_errors(line: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parsed(line)
    assert message in str(caught.value)


@pytest.mark.parametrize("line", ["--help", "help", "bucket --help", "bucket create --help"])
def test_help(line: str) -> None:
    with pytest.raises(HelpWanted) as caught:
        parsed(line)
    assert caught.value.asked
    assert all(len(text) <= 110 for text in caught.value.text.splitlines())


def test_every_command_has_its_help() -> None:
    for path, command in COMMANDS.items():
        with pytest.raises(HelpWanted) as caught:
            parsed(" ".join((*path, "--help")))
        text = caught.value.text
        assert f"Usage: garage-lite {' '.join(path)}" in text
        assert all(name in text for option in command.options for name in option.names)
        assert ("not available yet" in text) == (command.run is None)


def test_version_and_half_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(VersionWanted):
        parsed("--version")
    assert main(["-V"]) == 0
    assert re.fullmatch(r"garage-lite \d+\.\d+\.\d+ \[features: .*\]\n", capsys.readouterr().out)
    for half in ([], ["bucket"], ["-c", "f"]):
        assert main(half) == 1
        out, err = capsys.readouterr()
        assert out == "" and "Commands:" in err


def test_what_is_not_there_yet_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    later = [path for path, command in COMMANDS.items() if command.run is None]
    assert ("admin-token", "list") in later
    assert main(["admin-token", "create", "x"]) == 1
    assert capsys.readouterr() == (
        "",
        "Error: `garage-lite admin-token create` is not available yet in this version\n",
    )


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (["--help"], {"asyncio", "nacl", "msgpack", "aiohttp", "tomllib"}),
        (["-h", "ab" * 32 + "@127.0.0.1:1", "-s", "cd" * 32, "status"], {"aiohttp", "zstandard"}),
    ],
)
def test_a_command_loads_only_what_it_needs(arguments: list[str], unwanted: set[str]) -> None:
    script = (
        "import sys; from garage_lite.cli import main; main(sys.argv[1:]);"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=50
    )
    assert not unwanted & set(done.stderr.split())

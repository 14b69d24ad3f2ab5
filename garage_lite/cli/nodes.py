"""`node connect`, `node invite`, `node admit`, `node remove`: who belongs to the cluster."""

from __future__ import annotations

from garage_lite.cli.run import Api, CommandFailed, Context
from garage_lite.units import parse_duration_ms


async def connect(context: Context, api: Api) -> None:
    """Prints Garage's `Success.`"""
    (result,) = await api.call("ConnectClusterNodes", [context.values["peer"]])
    if not result["success"]:
        raise CommandFailed(str(result["error"]))
    print("Success.")


async def invite(context: Context, api: Api) -> None:
    """The join string on a line of its own; what to do with it around it."""
    duration = context.values["expires_in"]
    body = {} if duration is None else {"expiresInSecs": _seconds(duration)}
    invitation = await api.call("InviteClusterNode", body)
    if context.values["quiet"]:
        print(invitation["joinString"])
        return
    print("On the new node, before it is started for the first time, run:")
    print(f"\n    garage-lite node join {invitation['joinString']}\n")
    print(f"It will look for this node at {', '.join(invitation['addresses'])}.")
    print("Whoever has this line can join, once: send it by a way that you trust.")


def _seconds(text: str) -> int:
    try:
        return parse_duration_ms(text) // 1000
    except ValueError as error:
        raise CommandFailed(f"--expires-in: {error}") from error


async def admit(context: Context, api: Api) -> None:
    await api.call("AdmitClusterNode", {"id": context.values["id"]})
    print("Success.")


async def remove(context: Context, api: Api) -> None:
    if not context.values["yes"]:
        raise CommandFailed(
            "The node will be shut out of the cluster, whatever data it holds. Add --yes to"
            " really do it."
        )
    await api.call("RemoveClusterNode", {"id": context.values["id"]})
    print(
        "Success.\nThe node still knows the rpc_secret. Unless the cluster has"
        ' rpc_admission = "explicit", change it on the other nodes: with a new key it could'
        " come back."
    )

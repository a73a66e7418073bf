"""Runs in a network namespace of its own: the stand-in of IoT Hub on port 443, and Microsoft's SDKs as its clients.

usage: namespace.py PYTHON_OF_THE_SDK NODE FOLDER
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import trustme

from tests.standins.iothub import IotHub, new_key
from wirechamber.integrations.azure_iot_hub import AzureIotHub
from wirechamber.integrations.base import Allow, Call, Context, Delivered, Plan, Response, Token
from wirechamber.model.events import Event

HERE = Path(__file__).parent
EVENT = Event(
    id="0" * 32, name="temp", data="1", published_at=0, received_at=0, owner="o", coreid="ours", partition="o",
    origin="api",
)  # fmt: skip


def main(python: str, node: str, folder: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with IotHub("localhost", port=443, tls=context) as hub:
        ours(hub)
        owner, read_only = hub.keys["iothubowner"], hub.keys["readonly"]
        policies = (("iothubowner", owner), ("readonly", read_only), ("iothubowner", new_key()))
        said = sdk(
            [python, str(HERE / "sdk.py")],
            [f"HostName=localhost;SharedAccessKeyName={policy};SharedAccessKey={key}" for policy, key in policies],
            folder,
        )
        key = hub.identities["ours"]["authentication"]["symmetricKey"]["primaryKey"]
        keys = [f"HostName=localhost;DeviceId=ours;SharedAccessKey={each}" for each in (key, new_key())]
        said |= {"node": sdk([node, "--dns-result-order=ipv4first", str(HERE / "device.mjs")], keys, folder)}
        print(json.dumps(said | {"messages": hub.messages}))


def sdk(command: list[str], arguments: list[str], folder: Path) -> dict[str, Any]:
    """What a program of Microsoft's SDKs says."""
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    trust = {"REQUESTS_CA_BUNDLE": str(folder / "ca.pem"), "NODE_EXTRA_CA_CERTS": str(folder / "ca.pem")}
    done = subprocess.run(
        [*command, *arguments], env=clean | trust, capture_output=True, text=True, timeout=40, check=False
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return dict(json.loads(done.stdout))


def ours(hub: IotHub) -> None:
    """Our own client at the same stand-in: the plan, its calls made by httpx."""
    kind = AzureIotHub(hub.url)
    settings = {"hub_name": "localhost-hub", "policy_name": "iothubowner", "policy_key": hub.keys["iothubowner"]}
    prepared = kind.prepare(kind.read(settings, {}).config)
    prepared.host = "localhost"
    plan: Plan = kind.deliver((EVENT,), prepared, Context(int(time.time() * 1000), "test"))
    reply: object = None
    with httpx.Client(verify=False) as client:
        try:
            while True:
                step = plan.send(reply)
                reply = None
                if isinstance(step, Call):
                    asked = step.request
                    answer = client.request(asked.method, asked.url, headers=list(asked.headers), content=asked.body)
                    reply = Response(answer.status_code, tuple(answer.headers.items()), answer.content)
                elif isinstance(step, Token):
                    reply = _made(step)
                elif isinstance(step, Allow):
                    reply = 0.0
        except StopIteration as ended:
            if ended.value != [Delivered()]:
                sys.exit(f"our client says {ended.value}")


def _made(step: Token) -> str:
    making = step.plan()
    try:
        next(making)
        making.send(None)
    except StopIteration as ended:
        return str(ended.value[0])
    raise AssertionError("the token's plan did not end")


main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))

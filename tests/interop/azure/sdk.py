"""What Microsoft's service SDK for Python makes of a hub, printed as JSON. Runs in the SDK's own environment.

usage: sdk.py CONNECTION_STRING READ_ONLY_CONNECTION_STRING WRONG_CONNECTION_STRING
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import Twin, TwinProperties
from msrest.exceptions import HttpOperationError

DEVICE = "0123456789abcdef01234567"


def status_of(work: Callable[[], Any]) -> Any:
    try:
        work()
    except HttpOperationError as problem:
        return problem.response.status_code
    return 200


def main(owner: str, read_only: str, wrong: str) -> None:
    manager = IoTHubRegistryManager.from_connection_string(owner)

    def create(who: str) -> Any:
        return IoTHubRegistryManager.from_connection_string(who).create_device_with_sas(DEVICE, "", "", "enabled")

    said: dict[str, Any] = {"unknown": status_of(lambda: manager.get_device(DEVICE))}
    said["read_only_creates"] = status_of(lambda: create(read_only))
    said["wrong_key"] = status_of(lambda: create(wrong))
    made = create(owner)
    said["made"] = [made.device_id, made.status, bool(made.authentication.symmetric_key.primary_key)]
    said["made_twice"] = status_of(lambda: create(owner))
    said["read"] = manager.get_device(DEVICE).device_id
    said["read_only_reads"] = status_of(
        lambda: IoTHubRegistryManager.from_connection_string(read_only).get_device(DEVICE)
    )
    twin = Twin(properties=TwinProperties(desired={"deviceName": "lamp"}))
    manager.update_twin(DEVICE, twin, "*")
    said["name"] = manager.get_twin(DEVICE).properties.desired["deviceName"]
    said["read_only_names"] = status_of(
        lambda: IoTHubRegistryManager.from_connection_string(read_only).update_twin(DEVICE, twin, "*")
    )
    # What our client made, theirs reads.
    said["ours"] = manager.get_device("ours").device_id
    manager.delete_device(DEVICE)
    said["removed"] = status_of(lambda: manager.get_device(DEVICE))
    print(json.dumps(said))


main(*sys.argv[1:])

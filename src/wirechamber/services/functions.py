"""Asking a device on behalf of its owner: functions, variables, ping, signal (cloud-api.md, section 3)."""

from __future__ import annotations

from wirechamber.errors import BadInput, DeviceUnreachable, NotFound
from wirechamber.model.devices import Device
from wirechamber.model.generations import Takes
from wirechamber.services.devices import Devices
from wirechamber.switchboard.base import (
    CallFunction,
    Described,
    NotThere,
    Offline,
    Ping,
    ReadVariable,
    Signal,
    Switchboard,
    Value,
)


class Functions:
    """What an owner may ask of a device. Nobody else's device is ever asked."""

    def __init__(self, devices: Devices, switchboard: Switchboard) -> None:
        self._devices = devices
        self._switchboard = switchboard

    async def call(self, owner: str, id_or_name: str, function: str, argument: str) -> tuple[Device, int]:
        """Calls a function and returns the device with the function's result.

        Device OS acknowledges a call of an unknown function and never answers it (device-protocol.md, Q16), so the
        name is compared with what the device told of itself.

        Raises:
            Forbidden: The device is unknown or not the owner's.
            BadInput: The argument is too long.
            NotFound: The device has no such function.
            DeviceUnreachable: It is offline or did not answer in time.
        """
        device = await self._devices.get(owner, id_or_name)
        check_argument(argument, device.takes)
        if function not in device.functions:
            # Whether it is online, whoever holds its link knows; the registry learns it a moment later.
            if not device.online:
                raise Offline("the device is offline", error="timed out")
            device = await self._described(owner, device)
        if function not in device.functions:
            raise NotFound(f"Function {function} not found", error=f"Function {function} not found")
        result = await self._switchboard.ask(device.id, CallFunction(function, argument))
        return device, int(result)

    async def read(self, owner: str, id_or_name: str, variable: str) -> tuple[Device, Value]:
        """Reads a variable.

        Raises:
            Forbidden: The device is unknown or not the owner's.
            NotFound: The device has no such variable.
            DeviceUnreachable: It is offline or did not answer in time.
        """
        device = await self._devices.get(owner, id_or_name)
        kind = device.variables.get(variable)
        if kind is None:
            if not device.online:
                raise Offline("the device is offline", error="Timed out.")
            device = await self._described(owner, device)
            kind = device.variables.get(variable)
        if kind is None:
            raise NotFound(f"the device has no variable {variable}", error="Variable not found")
        try:
            return device, await self._switchboard.ask(device.id, ReadVariable(variable, kind))
        except NotThere:
            raise NotFound(f"the device has no variable {variable}", error="Variable not found") from None
        except DeviceUnreachable as problem:
            raise DeviceUnreachable(problem.description, error="Timed out.") from None

    async def _described(self, owner: str, device: Device) -> Device:
        """The device as it describes itself: one that has just connected may be about to."""
        try:
            await self._switchboard.ask(device.id, Described())
        except DeviceUnreachable:
            return device
        return await self._devices.get(owner, device.id)

    async def ping(self, owner: str, id_or_name: str) -> bool:
        """Whether the device answers at this moment."""
        device = await self._devices.get(owner, id_or_name)
        try:
            return bool(await self._switchboard.ask(device.id, Ping()))
        except DeviceUnreachable:
            return False

    async def signal(self, owner: str, id_or_name: str, *, on: bool) -> Device:
        """Makes the device show which one it is, or stop.

        Raises:
            DeviceUnreachable: It is offline or did not answer in time.
        """
        device = await self._devices.get(owner, id_or_name)
        await self._switchboard.ask(device.id, Signal(on))
        return device


def check_argument(argument: str, takes: Takes) -> None:
    """Whether a device takes an argument of this length: older firmware cuts a longer one, loses it, or crashes.

    Raises:
        BadInput: It does not.
    """
    if len(argument.encode("utf-8", "replace")) > takes.max_argument:
        raise BadInput(
            f"the argument is too long: this device ({takes.generation.name}) takes {takes.max_argument} bytes of UTF-8"
        )

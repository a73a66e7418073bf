"""What is told of attempts to reach a cloud."""

from __future__ import annotations

import logging
import socket

import pytest

from wirechamber.device.attempts import Attempts


def test_a_machine_without_its_network_does_not_fill_its_log(caplog: pytest.LogCaptureFixture) -> None:
    attempts = Attempts("cloud.example.com", 5684)
    with caplog.at_level(logging.WARNING, "wirechamber.device"):
        for _ in range(1000):
            attempts.no_way(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    assert len(caplog.messages) == 10
    assert caplog.messages[0] == (
        "cloud.example.com port 5684 (UDP): no way there (attempt 1): Name or service not known"
    )
    # Whoever waits for the connection is told the same at its end.
    assert attempts.hint == "no way there: Name or service not known"

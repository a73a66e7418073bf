"""What firmware measures, in the shape of Particle's cloud."""

from __future__ import annotations

from typing import Any

import pytest

from wirechamber.model.links import Vital
from wirechamber.protocols.deviceos.cbor import json_to_cbor
from wirechamber.protocols.deviceos.metrics import Metric, NotMetrics, metrics_by_name, read_metrics, write_metrics
from wirechamber.services.vitals import payload

# As a Photon 2 tells it.
WIFI: dict[str, Vital] = {
    "net:at": 1, "net:sigstr": 46.0, "net:sigstrv": -77.0, "net:sigqual": 12.904, "net:sigqualv": 13.0, "net:stat": 4,
    "net:err": 0, "net:dconn": 0, "net:connatt": 1, "net:dconnrsn": 7, "cloud:stat": 2, "cloud:err": 0,
    "cloud:connatt": 2, "cloud:dconn": 0, "cloud:dconnrsn": 0, "coap:transmit": 13, "coap:resend": 0, "coap:unack": 0,
    "coap:roundtrip": 531, "pub:limit": 0, "sys:uptime": 15, "sys:uram": 328_356, "sys:tram": 3_235_716,
}  # fmt: skip


def test_a_device_on_wifi() -> None:
    assert payload(WIFI, cloud_uptime=2) == {
        "device": {
            "network": {
                "signal": {
                    "at": "Wi-Fi", "strength": 46.0, "strength_units": "%", "strengthv": -77.0,
                    "strengthv_units": "dBm", "strengthv_type": "RSSI", "quality": 12.9, "quality_units": "%",
                    "qualityv": 13.0, "qualityv_units": "dB", "qualityv_type": "SNR",
                },
                "connection": {
                    "status": "connected", "error": 0, "disconnects": 0, "attempts": 1, "disconnect_reason": "unknown",
                },
            },
            "cloud": {
                "connection": {
                    "status": "connected", "error": 0, "attempts": 2, "disconnects": 0, "disconnect_reason": "none",
                },
                "coap": {"transmit": 13, "retransmit": 0, "unack": 0, "round_trip": 531},
                "publish": {"rate_limited": 0},
            },
            "system": {"uptime": 15, "memory": {"used": 328_356, "total": 3_235_716}},
        },
        "service": {"device": {"status": "ok"}, "cloud": {"uptime": 2}, "coap": {"round_trip": 531}},
    }  # fmt: skip


def test_a_device_on_a_cellular_network_with_a_battery() -> None:
    told: dict[str, Vital] = {
        "net:at": 8, "net:sigstrv": -77.0, "net:sigqualv": -11.0, "net:cell:cgi:mcc": 310, "net:cell:cgi:mnc": -4,
        "net:cell:cgi:lac": 3339, "net:cell:cgi:ci": 205_999_999, "batt:soc": {"err": -210}, "batt:state": 6,
        "pwr:src": 2, "app:3": 7, "mem:free": 80_000, "99": 1,
    }  # fmt: skip
    device: dict[str, Any] = payload(told)["device"]
    assert device["network"]["cellular"]["cell_global_identity"] == {
        "mobile_country_code": 310, "mobile_network_code": "04", "location_area_code": 3339, "cell_id": 205_999_999,
    }  # fmt: skip
    signal = device["network"]["signal"]
    assert (signal["at"], signal["strengthv_type"], signal["qualityv_type"]) == ("LTE Cat-M1", "RSRP", "RSRQ")
    assert device["power"] == {"battery": {"charge": {"err": -210}, "state": "disconnected"}, "source": "USB host"}
    # Nothing is lost.
    assert device["other"] == {"app:3": 7, "mem:free": 80_000, "99": 1}


@pytest.mark.parametrize("told", [{}, {"net:stat": 99}, {"net:stat": {"err": -1}}, {"net:cell:cgi:mnc": None}])
def test_odd_ones(told: dict[str, Vital]) -> None:
    shown = payload(told)
    assert shown["service"] == {"device": {"status": "ok"}}
    if told == {"net:stat": 99}:
        assert shown["device"]["network"]["connection"]["status"] == "99"


def test_the_binary_list_names_and_numbers_and_cbor_say_the_same() -> None:
    listed = write_metrics((Metric(6, 3600), Metric(41, -4), Metric(45, -70.5), Metric(33, None, -210)))
    named = '{"sys:uptime":3600,"net:cell:cgi:mnc":-4,"net:alt:sigstrv":-70.5,"net:sigstr":{"err":-210}}'
    found = metrics_by_name(listed)
    assert found == metrics_by_name(named.encode()) == metrics_by_name(json_to_cbor(named))
    assert found["net:sigstr"] == {"err": -210}
    assert [each.value for each in read_metrics(listed)] == [3600, -4, -70.5, None]


@pytest.mark.parametrize(
    "bad",
    [b"", b"\x00", b"{", b"[1]", b'{"a":"text"}', b'{"":1}', b"\xa1", b"\x83\x01\x02\x03", b"{" + b'"a":{' * 3000,
     b'{"' + b"x" * 65 + b'":1}', b'{"x":' + b"1" * 20_000 + b"}",
     b"{" + b",".join(b'"%d":1' % number for number in range(513)) + b"}"],
)  # fmt: skip
def test_what_is_none_of_it(bad: bytes) -> None:
    with pytest.raises(NotMetrics):
        metrics_by_name(bad)

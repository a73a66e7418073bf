"""Lists of links, as RFC 6690 has them."""

from __future__ import annotations

import pytest

from wirechamber.protocols.coap.links import Link, filtered, write_links

SENSOR = Link("/s/temp", "temperature", "Temperature", (0, 50), obs=True)
LIGHT = Link("/light", "light", "Light", (42,))
PLAIN = Link("/x", "thing", "Anything")


def test_the_text() -> None:
    assert write_links([SENSOR, LIGHT, PLAIN]).decode() == (
        '</s/temp>;rt="temperature";title="Temperature";ct="0 50";obs,'
        '</light>;rt="light";title="Light";ct=42,</x>;rt="thing";title="Anything"'
    )
    assert write_links([]) == b""


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("rt=light", [LIGHT]), ("rt=l*", [LIGHT]), ("href=/s/*", [SENSOR]), ("href=/x", [PLAIN]), ("ct=50", [SENSOR]),
        ("href=*", [SENSOR, LIGHT, PLAIN]), ("rt=none", []), ("foo=bar", []), ("rt", []), ("", []), ("foo=*", []),
    ],
)  # fmt: skip
def test_what_is_asked_for(query: str, found: list[Link]) -> None:
    assert filtered([SENSOR, LIGHT, PLAIN], query) == found

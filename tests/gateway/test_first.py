from pathlib import Path
from tests.cloud import cloud, eventually
from tests.gateway.peer import Peer, path_of
from wirechamber.protocols.coap.message import Code

ONE = "0123456789abcdef01234567"


def test_a_device(tmp_path: Path) -> None:
    with cloud(tmp_path / "data", provisioning="true", log_level="debug") as made:
        token = made.user("alice@example.com")
        client = made.client(token)
        peer = Peer.of(made, ONE).start()
        print(client.post("/v1/devices", json={"id": ONE}).json())
        assert peer.subscribe("hook-response/").code == Code.EMPTY
        print(peer.publish("temp", b"21.5"))
        print(client.get("/v1/devices").json())
        client.post("/v1/devices/events", json={"name": "hook-response/x", "data": "hi"})
        got = peer.request()
        print(path_of(got), got.payload)
        made.kill()
        made.start()
        print(peer.publish("temp", b"21.6"))
        client2 = made.client(token)
        client2.post("/v1/devices/events", json={"name": "hook-response/x", "data": "hi2"})
        got = peer.request()
        print(path_of(got), got.payload)
        peer.close()

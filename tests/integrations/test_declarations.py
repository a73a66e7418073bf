"""One declaration, and everything that is said of a kind agrees with it: API, command line, docs, masking."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import pytest
from msgspec import Struct

from tests.cloud import Cloud
from tests.standins.iothub import new_key
from tests.standins.pubsub import TOPIC, Account
from wirechamber.integrations.base import MASK, Integration, InvalidConfig
from wirechamber.integrations.declaration import Declaration, Secret, setting, table
from wirechamber.kinds import registry

DOCS = Path(__file__).parents[2] / "docs" / "integrations"
KINDS = {kind.kind: kind for kind in registry()}
GOOD: dict[str, dict[str, Any]] = {
    "Webhook": {"url": "http://127.0.0.1/", "auth": {"username": "u", "password": "the-password"}},
    "GoogleCloudPubSub": {"topic": TOPIC, "credentials": Account().text},
    "GoogleMaps": {"api_key": "AIza-a-secret-key"},
    "AzureIotHub": {"hub_name": "my-hub", "policy_name": "p", "policy_key": new_key()},
}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.kind)


@pytest.fixture
def client(live_shared: tuple[Cloud, str]) -> httpx.Client:
    running, token = live_shared
    return running.client(token)


@kinds
def test_the_page_has_the_table_of_the_fields(kind: Integration[Any, Any]) -> None:
    # `wirechamber integration kinds --markdown KIND` prints it.
    assert table(kind.declaration) in (DOCS / f"{kind.kind}.md").read_text()


@kinds
def test_the_api_tells_the_fields(client: httpx.Client, kind: Integration[Any, Any]) -> None:
    told = {each["integration_type"]: each for each in client.get("/v1/integrations/kinds").json()["kinds"]}
    found = told[kind.kind]
    assert (found["description"], found["installed"]) == (kind.summary, True)
    assert found["sample"]["data"] == kind.sample
    schema = found["schema"]
    assert list(schema["properties"]) == [each.name for each in kind.declaration.all]
    assert schema["required"] == [each.name for each in kind.declaration.all if each.required]
    for each in kind.declaration.all:
        described = schema["properties"][each.name]
        assert described["description"] == each.help
        assert described.get("writeOnly", False) is each.secret


@kinds
def test_the_command_line_has_a_flag_for_each(kind: Integration[Any, Any]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "wirechamber", "integration", "create", kind.kind.lower(), "--help"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    # Lines are broken at blanks and hyphens.
    text = squeezed(done.stdout)
    assert squeezed(kind.summary) in text
    for each in kind.declaration.all:
        flag = "--target" if each.name == "url" else each.flag
        assert flag in text, each.name
        assert squeezed(f"Must be {each.may_be}.") in text, each.name


def squeezed(text: str) -> str:
    return "".join(text.split())


@kinds
def test_what_is_missing_is_named(client: httpx.Client, kind: Integration[Any, Any]) -> None:
    good = {"event": "t"} | GOOD[kind.kind]
    for each in kind.declaration.all:
        if each.required:
            sent = {key: value for key, value in good.items() if key != each.name} | {"integration_type": kind.kind}
            answer = client.post("/v1/integrations", json=sent)
            assert (answer.status_code, answer.json()["field"]) == (400, each.name)
            assert answer.json()["error"].startswith(f"{each.name}: is required")


@kinds
def test_secrets_are_masked_and_the_mask_may_be_sent_back(client: httpx.Client, kind: Integration[Any, Any]) -> None:
    sent = {"integration_type": kind.kind, "event": "masked"} | GOOD[kind.kind]
    made = client.post("/v1/integrations", json=sent)
    assert made.status_code == 201, made.text
    where = f"/v1/integrations/{made.json()['id']}"
    shown = client.get(where).json()["integration"]
    assert kind.declaration.secrets
    for path in kind.declaration.secrets:
        given, seen = sent, shown
        for part in path.split("."):
            given, seen = given[part], seen[part]
        assert seen == MASK
        assert str(given)[:60] not in made.text + client.get("/v1/integrations").text
    # What is shown can be sent back as it is, and changes nothing.
    again = client.put(where, json=shown)
    assert again.status_code == 200, again.text
    assert client.delete(where).status_code == 204
    # For another integration, the mask stands for nothing.
    refused = client.post("/v1/integrations", json={key: value for key, value in shown.items() if key != "id"})
    assert refused.status_code == 400
    assert "is [[SENSITIVE]], but no value is stored for it" in refused.json()["error"]


class Strange(Struct, frozen=True, kw_only=True):
    """Every form that a field can have."""

    text: Annotated[str, setting("A text.", pattern="[a-z]+", allowed="small letters")]
    size: Annotated[int, setting("A number.", least=0, most=9)] = 3
    part: Annotated[float, setting("A part.", least=0)] = 0.5
    loud: Annotated[bool, setting("Loud.")] = True
    color: Annotated[Literal["Red", "Blue"], setting("A color.", spellings=("colour",))] = "Red"
    tags: Annotated[dict[str, str] | None, setting("Tags.")] = None
    key: Annotated[Secret | None, setting("A key.", pattern="[a-z]+")] = None


STRANGE = Declaration(Strange)


def test_every_form_is_read_from_json_and_from_text() -> None:
    sent = {"text": " abc ", "size": "7", "part": "0.25", "loud": "false", "colour": "blue", "tags": '{"a": 1}', "x": 1}
    reading = STRANGE.read(sent, {})
    assert reading.config == Strange(text="abc", size=7, part=0.25, loud=False, color="Blue", tags={"a": "1"})
    assert reading.settings == {
        "text": "abc", "size": 7, "part": 0.25, "loud": False, "color": "Blue", "tags": {"a": "1"}, "x": 1,
    }  # fmt: skip
    assert reading.warnings == ("x: is not known; it is stored and does nothing",)
    # Defaults, and empty texts that count as absent.
    assert STRANGE.read({"text": "abc", "size": "", "key": ""}, {}).config == Strange(text="abc")
    assert STRANGE.read({"text": "a", "loud": None}, {}).config.loud is True


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"text": "A"}, "text: must be small letters, not 'A'"),
        ({"text": ["a"]}, "text: must be a text, not a list"),
        ({"size": 10}, "size: must be a whole number from 0 to 9"),
        ({"size": -1}, "size: must be a whole number from 0 to 9"),
        ({"size": 1.5}, "size: must be a whole number from 0 to 9"),
        ({"size": True}, "size: must be a whole number from 0 to 9"),
        ({"size": 1e400}, "size: must be a whole number from 0 to 9"),
        ({"part": "x"}, "part: must be a number of at least 0"),
        ({"loud": "so so"}, "loud: must be true or false"),
        ({"color": "green"}, "color: must be one of Red, Blue"),
        ({"tags": [1]}, "tags: must be an object of names and values, not a list"),
        # A secret is not repeated.
        ({"key": "Passw0rd"}, "key: must be a text"),
        ({"text": "a" * 20_000}, "text: may have at most 16384 characters, not 20000"),
    ],
)
def test_a_wrong_value_is_told_with_what_is_allowed(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        STRANGE.read({"text": "abc"} | wrong, {})
    assert refused.value.description == says


class Sender(Struct, frozen=True, kw_only=True):
    server: Annotated[str, setting("Where it is.")]
    token: Annotated[Secret, setting("A token.")] = ""
    note: Annotated[str, setting("Said with each.")] = ""


def test_the_fields_that_are_urls_are_told_from_those_that_hold_one() -> None:
    found = Declaration(Sender).urls(
        Sender(server="https://pager.example/v1", token="http://10.0.0.1/", note="see http://10.0.0.1/")
    )
    assert found == [("server", "https://pager.example/v1")]

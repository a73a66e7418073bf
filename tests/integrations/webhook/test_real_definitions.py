"""Definitions as people have them, for services that are met often: taken as they are, and sent as their authors mean.

Their wording is ours; their shapes are those of consoles' exports, tutorials and command line files.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from msgspec import Struct

from tests.cloud import cloud
from tests.delivery.builders import NOW, OWNER, an_event
from wirechamber.integrations.base import About, Answer, Context, Delivered, DeviceInfo, Request, Response
from wirechamber.integrations.fields import common
from wirechamber.integrations.webhook import Webhook

HOOK = Webhook()
CONTEXT = Context(NOW, "Wirechamber/test (webhooks)")
ISO = "2023-11-14T22:13:20.000Z"
DEVICE = "0123456789abcdef01234567"
PLAIN = '{"t":21.50,"h":40,"where":{"lat":47.37,"lon":8.54}}'
NOTE = 'the "door"\nis open & cold'


class Case(Struct, kw_only=True):
    """A definition, an event, and the request that its author expects.

    Attributes:
        query: Of the URL, decoded.
        body: JSON as a value, a form as a dict in `form`, other text as text; None for no body.
        told: What the target answers, and what the device gets of it.
        warned: What the warnings begin with.
    """

    name: str
    definition: dict[str, Any]
    event: str = "reading"
    data: str | None = PLAIN
    method: str = "POST"
    url: str
    query: dict[str, str] = {}
    json: Any = None
    form: dict[str, str] | None = None
    text: str | None = None
    headers: dict[str, str] = {}
    told: tuple[str, str] | None = None
    warned: tuple[str, ...] = ()


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


DEFAULTS = {"event": "reading", "data": PLAIN, "published_at": ISO, "coreid": DEVICE}
EXPORT: dict[str, Any] = {
    "name": "", "responseTopic": "", "errorResponseTopic": "", "disabled": False, "rejectUnauthorized": True,
    "unchunked": False, "dataUrlResponseEvent": False,
}  # fmt: skip

CASES = [
    Case(
        name="ThingSpeak by GET",
        definition={
            "event": "reading", "url": "https://api.thingspeak.com/update", "requestType": "GET", "noDefaults": True,
            "query": {"api_key": "WRITEKEY01", "field1": "{{{t}}}", "field2": "{{{h}}}"}, "json": True,
        },
        method="GET", url="https://api.thingspeak.com/update",
        query={"api_key": "WRITEKEY01", "field1": "21.5", "field2": "40"}, warned=("query.api_key: looks like a key",),
    ),
    Case(
        name="ThingSpeak by form, a console's export",
        definition=EXPORT | {
            "event": "reading", "template": "thingspeak", "url": "https://api.thingspeak.com/update",
            "requestType": "POST", "noDefaults": True,
            "form": {
                "api_key": "WRITEKEY01", "field1": "{{{t}}}", "lat": "{{{where.lat}}}",
                "created_at": "{{{PARTICLE_PUBLISHED_AT}}}",
            },
        },
        url="https://api.thingspeak.com/update",
        form={"api_key": "WRITEKEY01", "field1": "21.5", "lat": "47.37", "created_at": ISO},
        warned=("form.api_key: looks like a key",),
    ),
    Case(
        name="InfluxDB 2, line protocol with the event's own time",
        definition={
            "event": "reading", "url": "https://influx.example/api/v2/write?org=home&bucket=air&precision=ms",
            "requestType": "POST", "noDefaults": True,
            "headers": {"Authorization": "Token abc==", "Content-Type": "text/plain; charset=utf-8"},
            "body": "air,device={{{PARTICLE_DEVICE_NAME}}} t={{t}},h={{h}} {{PARTICLE_PUBLISHED_AT_MS}}",
        },
        url="https://influx.example/api/v2/write", query={"org": "home", "bucket": "air", "precision": "ms"},
        headers={"Authorization": "Token abc==", "Content-Type": "text/plain; charset=utf-8"},
        text=f"air,device=lamp t=21.5,h=40 {NOW}",
    ),
    Case(
        name="InfluxDB 1 with its password in the URL",
        definition={
            "event": "reading", "url": "http://writer:p%40ss%3Aw@influx.example:8086/write?db=home",
            "body": "air t={{t}} {{PARTICLE_PUBLISHED_AT_NS}}", "rejectUnauthorized": "false",
        },
        url="http://influx.example:8086/write", query={"db": "home"},
        headers={"Authorization": basic("writer", "p@ss:w")}, text=f"air t=21.5 {NOW}000000",
        warned=("url: its user name and password were moved to auth",),
    ),
    Case(
        name="Ubidots, numbers in a JSON template",
        definition={
            "event": "reading", "url": "https://industrial.api.ubidots.com/api/v1.6/devices/{{{PARTICLE_DEVICE_ID}}}",
            "headers": {"X-Auth-Token": "BBFF-x"}, "secretHeaders": ["X-Auth-Token"], "noDefaults": True,
            "json": '{"temperature": {{{t}}}, "position": {"value": 1, '
                    '"context": {"lat": {{{where.lat}}}, "lng": {{{where.lon}}}}}}',
        },
        url=f"https://industrial.api.ubidots.com/api/v1.6/devices/{DEVICE}", headers={"X-Auth-Token": "BBFF-x"},
        json={"temperature": 21.5, "position": {"value": 1, "context": {"lat": 47.37, "lng": 8.54}}},
    ),
    Case(
        name="Slack, text with quotes and a line break",
        definition={
            "event": "alarm", "url": "https://hooks.slack.com/services/T0/B0/x", "noDefaults": True,
            "json": {"text": "{{{PARTICLE_EVENT_NAME}}}: {{{PARTICLE_EVENT_VALUE}}}", "mrkdwn": True},
        },
        event="alarm/door", data=NOTE, url="https://hooks.slack.com/services/T0/B0/x",
        json={"text": f"alarm/door: {NOTE}", "mrkdwn": True}, told=("ok", "ok"),
    ),
    Case(
        name="Slack, the event is the message",
        definition={
            "event": "slack", "url": "https://hooks.slack.com/services/T0/B0/x", "noDefaults": True,
            "json": "{{{PARTICLE_EVENT_VALUE}}}",
        },
        event="slack", data='{"text":"up since 3 days"}', url="https://hooks.slack.com/services/T0/B0/x",
        json={"text": "up since 3 days"},
    ),
    Case(
        name="Google Sheets through Apps Script",
        definition=EXPORT | {
            "event": "reading", "url": "https://script.google.com/macros/s/AKfy-x/exec", "requestType": "POST",
            "json": {"celsius": "{{{t}}}", "sheet": "Log"}, "body": "", "form": {}, "query": None, "headers": None,
        },
        url="https://script.google.com/macros/s/AKfy-x/exec", json={**DEFAULTS, "celsius": "21.5", "sheet": "Log"},
    ),
    Case(
        name="Losant, JSON without fields of one's own",
        definition=EXPORT | {
            "event": "reading", "template": "losant", "url": "https://triggers.losant.com/webhooks/abc",
            "requestType": "POST", "noDefaults": False, "json": True,
        },
        url="https://triggers.losant.com/webhooks/abc", json=DEFAULTS,
        headers={"Content-Type": "application/json", "Accept": "application/json"},
    ),
    Case(
        name="an Azure function with its key in the URL",
        definition={
            "event": "reading", "url": "https://air.azurewebsites.net/api/ingest?code=a%2Fb%3D%3D&clientId=default",
            "json": {"device": {"id": "{{{PARTICLE_DEVICE_ID}}}", "celsius": "{{{t}}}"}, "version": 2},
            "noDefaults": True,
        },
        url="https://air.azurewebsites.net/api/ingest", query={"code": "a/b==", "clientId": "default"},
        json={"device": {"id": DEVICE, "celsius": "21.5"}, "version": 2},
    ),
    Case(
        name="an Azure logic app, signed in the query, with fields beside it",
        definition={
            "event": "reading", "requestType": "PUT", "noDefaults": True, "body": {"t": "{{{t}}}"},
            "url": "https://prod-1.logic.azure.com/workflows/w/triggers/manual/paths/invoke"
                   "?api-version=2016-10-01&sp=%2Ftriggers&sig=Ab_c-d",
            "query": {"from": "{{{PARTICLE_DEVICE_ID}}}"}, "headers": {"content-type": "application/json"},
        },
        method="PUT", url="https://prod-1.logic.azure.com/workflows/w/triggers/manual/paths/invoke",
        query={"api-version": "2016-10-01", "sp": "/triggers", "sig": "Ab_c-d", "from": DEVICE},
        headers={"content-type": "application/json"}, text='{"t":"21.5"}',
    ),
    Case(
        name="AWS API Gateway with a key",
        definition={
            "event": "reading", "url": "https://abc.execute-api.eu-central-1.amazonaws.com/prod/readings",
            "requestType": "PUT", "headers": {"x-api-key": "KEY{{12"}, "secretHeaders": "x-api-key",
            "json": {"id": "{{{PARTICLE_EVENT_ID}}}", "at": "{{{PARTICLE_PUBLISHED_AT}}}", "t": "{{{t}}}"},
            "noDefaults": True,
        },
        method="PUT", url="https://abc.execute-api.eu-central-1.amazonaws.com/prod/readings",
        headers={"x-api-key": "KEY{{12"}, json={"id": "0" * 32, "at": ISO, "t": "21.5"},
    ),
    Case(
        name="a batch endpoint that wants a list",
        definition={
            "event": "reading", "url": "https://in.example/batch", "headers": {"Authorization": "Bearer abc"},
            "json": [{"measurement": "air", "tags": {"id": "{{{PARTICLE_DEVICE_ID}}}"}, "value": "{{{t}}}"}],
        },
        url="https://in.example/batch", headers={"Authorization": "Bearer abc"},
        json=[{"measurement": "air", "tags": {"id": DEVICE}, "value": "21.5"}],
    ),
    Case(
        name="IFTTT, the event's name in the path",
        definition={
            "event": "ifttt_", "url": "https://maker.ifttt.com/trigger/{{{PARTICLE_EVENT_NAME}}}/with/key/kkk",
            "requestType": "POST", "json": {"value1": "{{{PARTICLE_EVENT_VALUE}}}"}, "noDefaults": True,
        },
        event="ifttt_door", data="open", url="https://maker.ifttt.com/trigger/ifttt_door/with/key/kkk",
        json={"value1": "open"},
    ),
    Case(
        name="Home Assistant's states",
        definition={
            "event": "reading", "url": "https://home.example:8123/api/states/sensor.{{{PARTICLE_DEVICE_NAME}}}",
            "headers": {"Authorization": "Bearer ey.J.x", "Content-Type": "application/json"}, "noDefaults": True,
            "json": '{"state": {{{t}}}, "attributes": {"unit_of_measurement": "°C", "humidity": {{{h}}}}}',
        },
        url="https://home.example:8123/api/states/sensor.lamp",
        headers={"Authorization": "Bearer ey.J.x", "Content-Type": "application/json"},
        json={"state": 21.5, "attributes": {"unit_of_measurement": "°C", "humidity": 40}},
    ),
    Case(
        name="OpenWeather, a URL that ends in ?",
        definition={
            "event": "weather", "url": "https://api.openweathermap.org/data/2.5/weather?", "requestType": "GET",
            "query": {"lat": "{{where.lat}}", "lon": "{{where.lon}}", "appid": "APPID"}, "noDefaults": True, "json": {},
            "responseTopic": "{{PARTICLE_DEVICE_ID}}/hook-response/weather",
            "responseTemplate": "{{main.temp}}~{{#weather}}{{description}}~{{/weather}}",
        },
        event="weather", method="GET", url="https://api.openweathermap.org/data/2.5/weather",
        query={"lat": "47.37", "lon": "8.54", "appid": "APPID"},
        told=('{"main":{"temp":3.50},"weather":[{"description":"light snow"}]}', "3.5~light snow~"),
    ),
    Case(
        name="weather.gov, which wants to know who asks",
        definition={
            "event": "weather", "url": "https://api.weather.gov/stations/{{{PARTICLE_EVENT_VALUE}}}/observations/latest",
            "requestType": "GET",
            "headers": {"User-Agent": "(me.example, me@me.example)", "Accept": "application/geo+json"},
            "noDefaults": True, "responseTemplate": {"c": "{{{properties.temperature.value}}}"},
        },
        event="weather", data="KSFO", method="GET", url="https://api.weather.gov/stations/KSFO/observations/latest",
        headers={"User-Agent": "(me.example, me@me.example)", "Accept": "application/geo+json"},
        told=('\ufeff{"properties":{"temperature":{"value":12.8}}}', '{"c":"12.8"}'),
    ),
    Case(
        name="Twilio, a form with a user and a password",
        definition={
            "event": "sms", "url": "https://api.twilio.com/2010-04-01/Accounts/AC0/Messages.json",
            "auth": {"username": "AC0", "password": "to{{ken"}, "noDefaults": True,
            "form": {"From": "+15550001", "To": "{{{to}}}", "Body": "{{{text}}}"},
        },
        event="sms", data='{"to":"+4179","text":"50% & more"}',
        url="https://api.twilio.com/2010-04-01/Accounts/AC0/Messages.json",
        headers={"Authorization": basic("AC0", "to{{ken")},
        form={"From": "+15550001", "To": "+4179", "Body": "50% & more"},
    ),
    Case(
        name="Pushover",
        definition={
            "event": "push", "url": "https://api.pushover.net/1/messages.json", "noDefaults": "true",
            "form": {
                "token": "tok", "user": "usr", "title": "{{{PARTICLE_EVENT_NAME}}}",
                "message": "{{{SPARK_EVENT_VALUE}}}",
            },
        },
        event="push", data=NOTE, url="https://api.pushover.net/1/messages.json",
        form={"token": "tok", "user": "usr", "title": "push", "message": NOTE},
        warned=("form.token: looks like a key",),
    ),
    Case(
        name="PagerDuty",
        definition={
            "event": "alarm", "url": "https://events.pagerduty.com/v2/enqueue", "noDefaults": True,
            "json": {
                "routing_key": "RK", "event_action": "trigger", "dedup_key": "{{{PARTICLE_DEVICE_ID}}}",
                "payload": {"summary": "{{{PARTICLE_EVENT_VALUE}}}", "severity": "error",
                            "source": "{{{PARTICLE_DEVICE_NAME}}}",
                            "custom_details": {"version": "{{{PRODUCT_VERSION}}}", "product": "{{{PRODUCT_ID}}}"}},
            },
        },
        event="alarm", data=NOTE, url="https://events.pagerduty.com/v2/enqueue",
        json={
            "routing_key": "RK", "event_action": "trigger", "dedup_key": DEVICE,
            "payload": {"summary": NOTE, "severity": "error", "source": "lamp",
                        "custom_details": {"version": "7", "product": "12345"}},
        },
    ),
    Case(
        name="Firebase by PATCH",
        definition={
            "event": "reading", "url": "https://x.firebaseio.com/devices/{{{PARTICLE_DEVICE_ID}}}.json?auth=SECRET",
            "requestType": "PATCH", "json": {"t": "{{{t}}}"}, "noDefaults": True,
        },
        method="PATCH", url=f"https://x.firebaseio.com/devices/{DEVICE}.json", query={"auth": "SECRET"},
        json={"t": "21.5"},
    ),
    Case(
        name="Telegraf, which wants the data as an object",
        definition={
            "event": "reading", "url": "https://telegraf.example/particle", "noDefaults": True,
            "json": '{"event":"{{{PARTICLE_EVENT_NAME}}}","data":{{{PARTICLE_EVENT_VALUE}}},'
                    '"published_at":"{{{PARTICLE_PUBLISHED_AT}}}","coreid":"{{{PARTICLE_DEVICE_ID}}}"}',
        },
        url="https://telegraf.example/particle",
        json={"event": "reading", "data": json.loads(PLAIN), "published_at": ISO, "coreid": DEVICE},
    ),
    Case(
        name="Blynk, everything in the URL",
        definition={
            "event": "reading", "url": "https://blynk.cloud/external/api/batch/update?token=TOK&v1={{{t}}}&v2={{{h}}}",
            "requestType": "GET", "noDefaults": True,
        },
        method="GET", url="https://blynk.cloud/external/api/batch/update",
        query={"token": "TOK", "v1": "21.5", "v2": "40"},
        warned=("url.token: looks like a key", "url: what t, h holds is printed as it is"),
    ),
    Case(
        name="an old file of the command line",
        definition={
            "eventName": "get_temp", "url": "http://api.example/now?event=mine", "requestType": "GET", "headers": None,
            "query": None, "responseTemplate": None, "responseTopic": None, "json": None, "auth": None,
            "mydevices": True, "deviceid": DEVICE.upper(),
        },
        event="get_temp", data=None, method="GET", url="http://api.example/now",
        query={"event": "mine", "data": "", "published_at": ISO, "coreid": DEVICE},
    ),
    Case(
        name="nothing but an event and a URL",
        definition={"event": "reading", "url": "https://webhook.site/x"},
        url="https://webhook.site/x", form=DEFAULTS,
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_request_is_what_its_author_expects(case: Case) -> None:
    shared = common(case.definition)
    assert case.event.startswith(shared.event)
    reading = HOOK.read(shared.rest, {})
    assert [warning.startswith(begin) for warning, begin in zip(reading.warnings, case.warned, strict=True)] == [
        True for _ in case.warned
    ]
    event = an_event(case.event, case.data, device=DEVICE, coreid=DEVICE)
    prepared = HOOK.prepare(reading.config)
    plan = HOOK.deliver([event], prepared, CONTEXT)
    step = next(plan)
    if isinstance(step, About):
        step = plan.send(DeviceInfo("lamp", "7", 12345, OWNER))
    request: Request = step.request  # type: ignore[union-attr]
    address, _, query = request.url.partition("?")
    assert (request.method, address) == (case.method, case.url)
    assert dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))) == case.query
    headers = dict(request.headers)
    assert {name: headers.get(name) for name in case.headers} == case.headers
    body = None if request.body is None else request.body.decode()
    if case.json is not None:
        assert json.loads(body or "") == case.json
        assert headers["Content-Type"].startswith("application/json")
    elif case.form is not None:
        assert dict(parse_qsl(body or "", keep_blank_values=True)) == case.form
        assert headers["Content-Type"] == "application/x-www-form-urlencoded"
    else:
        assert body == case.text
    if case.told is not None:
        said, data = case.told
        raw = said.encode()
        response = Response(200, (("Content-Type", "application/json"),), raw, len(raw))
        assert HOOK.outcome(event, response, prepared, CONTEXT) == Delivered(Answer(data))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder: Path = tmp_path_factory.mktemp("definitions")
    with cloud(folder / "data") as live:
        yield live.client(live.user("ann"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_cloud_takes_it_as_a_file_and_takes_back_what_it_shows(client: httpx.Client, case: Case) -> None:
    # As an editor saves it that begins files with a mark.
    file = b"\xef\xbb\xbf" + json.dumps(case.definition, indent=4).encode()
    answer = client.post("/v1/integrations", content=file, headers={"Content-Type": "application/json"})
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert len(made["warnings"]) == len(case.warned)
    shown = client.get(f"/v1/integrations/{made['id']}").json()["integration"]
    assert "Bearer ey" not in json.dumps(shown)
    again = client.put(f"/v1/integrations/{made['id']}", json=shown)
    assert again.status_code == 200, again.text
    for name in ("url", "requestType", "json", "form", "body", "query", "headers", "auth", "responseTemplate"):
        assert again.json().get(name) == made.get(name), name


def test_they_are_more_than_twenty_and_each_goes_somewhere_else() -> None:
    assert len(CASES) >= 22
    assert len({urlsplit(case.url).hostname for case in CASES}) > 18

from hypothesis import given
from hypothesis import strategies as st

from tests.delivery.builders import OWNER, an_event, an_integration
from wirechamber.delivery.index import Index
from wirechamber.integrations.registry import Registry
from wirechamber.model.events import MAX_DEPTH
from wirechamber.model.integrations import IntegrationRecord


def an_index(*records: IntegrationRecord) -> Index:
    index = Index(Registry([]), int)
    index.apply(records, [])
    return index


def found(index: Index, order: int = 10, **event: object) -> set[str]:
    return {trigger.record.id for trigger in index.match(an_event(**event), order)}  # type: ignore[arg-type]


NAMES = st.text(alphabet="ab/", max_size=6)


@given(prefixes=st.lists(NAMES.filter(bool), max_size=12), name=NAMES.filter(bool))
def test_it_finds_exactly_what_a_prefix_test_of_each_finds(prefixes: list[str], name: str) -> None:
    records = [an_integration(prefix, id=f"{number}") for number, prefix in enumerate(prefixes)]
    assert found(an_index(*records), name=name) == {r.id for r in records if name.startswith(r.event)}


def test_matching_is_case_sensitive_and_from_the_start() -> None:
    index = an_index(an_integration("temp"))
    assert found(index, name="temp")
    assert found(index, name="temperature/basement")
    assert not found(index, name="high_temp")
    assert not found(index, name="Temp")
    assert not found(index, name="tem")


def test_only_the_owners_own_events_match() -> None:
    assert not found(an_index(an_integration("temp")), name="temp", owner="someone-else")


def test_a_device_filter_holds_for_that_device_only() -> None:
    index = an_index(an_integration("temp", device="a" * 24))
    assert found(index, name="temp", device="a" * 24)
    assert not found(index, name="temp", device="b" * 24)
    assert not found(index, name="temp")


def test_hook_results_trigger_nothing_whatever_their_name() -> None:
    assert not found(an_index(an_integration("temp")), name="temp", origin="integration")


def test_an_event_that_is_too_deep_triggers_nothing() -> None:
    index = an_index(an_integration("temp"))
    assert found(index, name="temp", origin="system", depth=MAX_DEPTH)
    assert not found(index, name="temp", origin="system", depth=MAX_DEPTH + 1)


def test_an_event_about_an_integration_does_not_trigger_that_one() -> None:
    index = an_index(an_integration("temp", id="one"), an_integration("temp", id="two"))
    assert found(index, name="temp", origin="system", about="one") == {"two"}


def test_events_before_the_integration_was_made_or_edited_do_not_trigger_it() -> None:
    index = an_index(an_integration("temp", since="10"))
    assert not found(index, order=10, name="temp")
    assert found(index, order=11, name="temp")


def test_changes_replace_and_removals_remove() -> None:
    index = an_index(an_integration("temp", id="one"))
    index.apply([an_integration("hum", id="one")], [])
    assert not found(index, name="temp")
    assert found(index, name="humidity") == {"one"}
    index.apply([an_integration("hum", id="one", disabled=True)], [])
    assert not found(index, name="humidity")
    assert index.get("one") is not None
    index.apply([], ["one", "never-known"])
    assert index.get("one") is None
    assert index._owners == {}
    assert OWNER

from hypothesis import given
from hypothesis import strategies as st

from tests.delivery.builders import NOW, an_event
from wirechamber.delivery.results import CHUNK_BYTES, chunks, of_failure, of_success
from wirechamber.integrations.base import Answer, Topics

TOPICS = Topics("hook-sent/temperature", "hook-response/temperature", "hook-error/temperature")


@given(st.text(max_size=3000))
def test_chunks_put_together_are_the_text_and_none_is_over_512_bytes(text: str) -> None:
    pieces = list(chunks(text))
    assert "".join(pieces) == text
    assert all(len(piece.encode()) <= CHUNK_BYTES for piece in pieces)
    # Shorter than 512 only where a character of up to 4 bytes would have been cut.
    assert all(len(piece.encode()) > CHUNK_BYTES - 4 for piece in pieces[:-1])


@given(st.text(alphabet=st.characters(max_codepoint=127), min_size=1, max_size=3000))
def test_chunks_of_ascii_are_exactly_512_bytes_but_for_the_last(text: str) -> None:
    pieces = list(chunks(text))
    assert all(len(piece) == CHUNK_BYTES for piece in pieces[:-1])
    assert 0 < len(pieces[-1]) <= CHUNK_BYTES


def test_a_success_with_an_answer_is_sent_and_response_in_chunks() -> None:
    made = of_success(an_event(), "hook", "d" * 32, TOPICS, Answer("x" * 600), NOW, late=False)
    assert [event.name for event in made] == [
        "hook-sent/temperature",
        "hook-response/temperature/0",
        "hook-response/temperature/1",
    ]
    assert [len(event.data or "") for event in made] == [0, 512, 88]
    assert {event.coreid for event in made} == {"particle-internal"}
    assert {(event.origin, event.depth, event.cause, event.about) for event in made} == {
        ("integration", 1, "0" * 32, "hook")
    }


def test_an_unchunked_answer_is_one_event_without_index() -> None:
    made = of_success(an_event(), "hook", "d" * 32, TOPICS, Answer("x" * 600, chunked=False), NOW, late=False)
    assert [event.name for event in made] == ["hook-sent/temperature", "hook-response/temperature"]


def test_a_success_without_an_answer_is_only_sent() -> None:
    assert [event.name for event in of_success(an_event(), "hook", "d" * 32, TOPICS, None, NOW, late=False)] == [
        TOPICS.sent
    ]


def test_the_same_result_made_twice_has_the_same_ids_and_others_differ() -> None:
    first = of_success(an_event(), "hook", "d" * 32, TOPICS, Answer("y" * 1200), NOW, late=False)
    again = of_success(an_event(), "hook", "d" * 32, TOPICS, Answer("y" * 1200), NOW + 5, late=True)
    assert [event.id for event in first] == [event.id for event in again]
    error = of_failure(an_event(), "hook", "d" * 32, TOPICS, "ETIMEDOUT", NOW)
    assert len({event.id for event in [*first, error]}) == len(first) + 1
    assert error.name == "hook-error/temperature/0"


def test_a_rendered_topic_can_not_break_the_framing_of_a_stream() -> None:
    topics = Topics("a", "evil\ndata: x\r\n\r\n" + "n" * 400, "c")
    name = of_success(an_event(), "hook", "d" * 32, topics, Answer("x"), NOW, late=False)[1].name
    assert "\n" not in name
    assert "\r" not in name
    assert len(name) <= 256


def test_parts_of_a_longer_answer_are_told_from_whole_ones() -> None:
    def types(data: str) -> list[str]:
        answer = Answer(data, chunked=True)
        made = of_success(
            an_event(), "integration", "delivery", Topics("sent", "response", "error"), answer, NOW, late=False
        )
        return [each.content_type for each in made]

    assert types("x" * 512) == ["text/plain", "text/plain"]
    assert types("x" * 513) == ["text/plain", "text/plain; part", "text/plain; part"]

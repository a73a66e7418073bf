from hypothesis import given
from hypothesis import strategies as st

from wirechamber.delivery.watermark import Watermark
from wirechamber.eventlog.base import Cursor


@given(st.data())
def test_the_cursor_is_always_below_the_oldest_event_that_is_not_settled(data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(0, 3), max_size=30))
    watermark = Watermark(Cursor("0"))
    open_marks = []
    for position, count in enumerate(counts, start=1):
        mark = watermark.passed(Cursor(str(position)), count)
        open_marks += [(position, mark)] * count
    while open_marks:
        assert int(watermark.cursor) < min(position for position, _ in open_marks)
        _, mark = open_marks.pop(data.draw(st.integers(0, len(open_marks) - 1)))
        assert mark is not None
        watermark.settled(mark)
    assert watermark.cursor == str(len(counts))
    assert watermark.outstanding == 0

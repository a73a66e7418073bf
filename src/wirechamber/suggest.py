"""What somebody may have meant who wrote a name that there is not."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

# Longer ones are compared with nothing: it takes the product of both lengths.
MAX_COMPARED = 64


def meant(word: str, known: Iterable[str]) -> str | None:
    """The known name that is most like the word, if one is; letter case and `-` for `_` make no difference."""
    if len(word) > MAX_COMPARED:
        return None
    plain = {_plain(each): each for each in known}
    found = get_close_matches(_plain(word), plain, n=1, cutoff=0.75)
    return plain[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)`, or nothing."""
    found = meant(word, known)
    return "" if found is None else f" (did you mean {found}?)"


def _plain(word: str) -> str:
    return word.casefold().replace("-", "_")

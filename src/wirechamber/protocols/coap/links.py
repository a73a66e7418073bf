"""What a server has, as a list of links: `/.well-known/core` (RFC 6690)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

WELL_KNOWN = (b".well-known", b"core")


class Link(Struct, frozen=True):
    """A resource.

    Attributes:
        rt: Of what type it is.
        title: For people.
        ct: Content formats that it takes or gives.
        obs: It can be observed (RFC 7641, section 6).
    """

    href: str
    rt: str
    title: str
    ct: tuple[int, ...] = ()
    obs: bool = False

    def values(self, attribute: str) -> tuple[str, ...]:
        """What the link says of itself under a name."""
        match attribute:
            case "href":
                return (self.href,)
            case "rt":
                return (self.rt,)
            case "title":
                return (self.title,)
            case "ct":
                return tuple(str(number) for number in self.ct)
            case _:
                return ()


def write_links(links: Iterable[Link]) -> bytes:
    """The list, as text of content format 40."""
    return ",".join(map(_text, links)).encode()


def _text(link: Link) -> str:
    parts = [f"<{link.href}>", f'rt="{link.rt}"', f'title="{link.title}"']
    if link.ct:
        parts.append(f'ct="{" ".join(map(str, link.ct))}"' if len(link.ct) > 1 else f"ct={link.ct[0]}")
    if link.obs:
        parts.append("obs")
    return ";".join(parts)


def filtered(links: Sequence[Link], query: str) -> Sequence[Link]:
    """Those that a query such as `rt=event` or `href=/e*` asks for (section 4.1); none for what no link says."""
    attribute, _, wanted = query.partition("=")
    if wanted.endswith("*"):
        return [link for link in links if any(value.startswith(wanted[:-1]) for value in link.values(attribute))]
    return [link for link in links if wanted in link.values(attribute)]

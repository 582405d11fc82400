"""Reading a page of ours: its tags are balanced, and what it links and says is known."""

from html.parser import HTMLParser

_VOID = {"meta", "input", "img", "br"}


class PageReader(HTMLParser):
    """Fails where a tag is closed that is not open, or stays open.

    ``links`` are all addresses of the page, ``text`` all that is read outside its style.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self._open: list[str] = []
        self.text = ""
        self.links: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += data

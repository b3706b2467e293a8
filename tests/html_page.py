"""Reads an HTML page strictly, for tests of the report."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "hr", "input"}


class _Balanced(HTMLParser):
    """Every element is closed where it should be; collects addresses."""

    def __init__(self):
        super().__init__()
        self.open, self.addresses, self.ids, self.tags = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attributes = dict(attrs)
        self.addresses += [value for key, value in attributes.items() if key in ("src", "href")]
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)  # an SVG element without children
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"


def parse(path):
    parser = _Balanced()
    parser.feed(path.read_text())
    parser.close()
    assert parser.open == []
    return parser

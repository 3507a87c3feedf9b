"""What a reader and a browser would find in a report."""

import html.parser


class Page(html.parser.HTMLParser):
    """Cells of the table of results, images, the words of the page, and everything it would load."""

    def __init__(self, text):
        super().__init__()
        self.table, self.images, self.loads, self.words, self.tags = [], [], [], [], []
        self._inside = self._cell = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self._inside |= tag == "table" and attrs.get("id") == "results"
        if self._inside and tag == "tr":
            self.table.append([])
        if self._inside and tag in ("td", "th"):
            self.table[-1].append("")
            self._cell = True
        if tag == "img":
            self.images.append(attrs)
        self.loads += [attrs[name] for name in ("src", "href", "action", "srcset") if name in attrs]

    def handle_endtag(self, tag):
        self._inside &= tag != "table"
        self._cell &= tag not in ("td", "th")

    def handle_data(self, data):
        self.words.append(data)
        if self._cell:
            self.table[-1][-1] += data

"""What a reader and a browser would find in a report."""

import base64
import csv
import html.parser
import io


class Page(html.parser.HTMLParser):
    """Cells of the table of results and the values behind them, images, files to download by name, the words of the
    page, and everything it would load."""

    def __init__(self, text):
        super().__init__()
        self.table, self.images, self.loads, self.words, self.tags = [], [], [], [], []
        self.values, self.files = [], {}
        self._inside = self._cell = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self._inside |= tag == "table" and attrs.get("id") == "results"
        if self._inside and tag == "tr":
            self.table.append([])
            self.values.append([])
        if self._inside and tag in ("td", "th"):
            self.table[-1].append("")
            self.values[-1] += [attrs["data-value"]] if "data-value" in attrs else []
            self._cell = True
        if "download" in attrs:
            self.files[attrs["download"]] = base64.b64decode(attrs["href"].partition("base64,")[2])
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

    def shows(self, path):
        """Whether the page holds a CSV file, and its table the values of some of its columns, in their order."""
        if self.files[path.name] != path.read_bytes():
            return False
        heading, *rows = csv.reader(io.StringIO(path.read_text()))
        columns = [list(column) for column in zip(*rows, strict=True)]
        places = [columns.index(list(column)) for column in zip(*self.values[1:], strict=True)]
        return len(places) == len(self.table[0]) <= len(heading) and len(self.values[1:]) == len(rows)

from __future__ import annotations

import pytest

from normsniff.source.remote.answers import MOST_ENTRIES, Entry, RefusedError
from normsniff.source.remote.pages import entries_of_page

HERE = "http://host/lake/"


def test_only_what_lies_directly_below_is_in_a_directory() -> None:
    page = b"""<a href="m%201.gguf">one</a> <A class=x HREF = 'sub/'>two</A> <a href="./n.gguf?v=2#t">three</a>
    <a href="..">up</a> <a href="%2e%2e/">up</a> <a href="/">root</a> <a href="http://other/lake/x.gguf">elsewhere</a>
    <a href="//other/lake/x.gguf">elsewhere</a> <a href="sub/deep.gguf">deeper</a> <a href="..%2fx">quoted</a>
    <a href="/lake/o.gguf">absolute</a>"""
    expected = [Entry("m 1.gguf", False), Entry("sub", True), Entry("n.gguf", False), Entry("o.gguf", False)]
    assert entries_of_page(page, HERE) == expected
    assert entries_of_page(page, HERE + "?page=1") == expected


def test_a_link_that_is_none_hides_no_other() -> None:
    assert entries_of_page(b"<a href='//[x'><a href='http://[::1/'><a href='m.gguf'>", HERE) == [Entry("m.gguf", False)]


@pytest.mark.parametrize("link", [b"<a href='%x'>", b"<a href=' '>", b"<a href='m'>%x"])
def test_a_page_of_too_many_links_is_refused(link: bytes) -> None:
    page = b"".join(link % i if b"%" in link else link for i in range(6 * MOST_ENTRIES))
    with pytest.raises(RefusedError, match="links on one page"):
        entries_of_page(page, HERE)

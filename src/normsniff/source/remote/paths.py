"""A file or directory behind a URL, named with the vocabulary of `pathlib`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from urllib.parse import quote, unquote

from ...errors import SourceError, redact_url
from ...limits import Limits
from .answers import Entry
from .files import Files
from .link import Link

_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://(.*)", re.DOTALL)
_PAGE = re.compile(
    r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<repository>[\w.-]+/[\w.-]+)"
    r"(?:/(?:tree|blob)/(?P<revision>[^/?#]+)(?P<below>/[^?#]*)?)?/?(?:[?#].*)?"
)


@dataclass(frozen=True)
class RemotePath:
    """What `pathlib.Path` is for local files, as far as it is needed.

    Attributes:
        scheme: "https", "s3" and so on.
        where: all that follows the scheme, but a query; percent-encoded for HTTP, without a slash at its end.
        link: the file system, shared by all paths that come from this one.
        query: of an HTTP URL, with its question mark. Files beside this one are asked for with the same query.
        folder: whether the URL ended in a slash.
    """

    scheme: str
    where: str
    link: Link = field(compare=False, repr=False)
    query: str = ""
    folder: bool = field(default=False, compare=False)

    @classmethod
    def parse(cls, url: str, limits: Limits, files: Files | None = None) -> RemotePath:
        """Take a URL apart.

        Args:
            url: the URL.
            limits: what one model may cost.
            files: a file system of the caller's own; else the one that the scheme names.

        Raises:
            SourceError: it has a scheme that is not supported, or names no host or bucket.
        """
        url = _on_the_hub(url)
        match = _URL.fullmatch(url)
        scheme, rest = (match[1].lower(), match[2]) if match else ("", url)
        link = Link(scheme, limits, redact_url(url), files)
        query = ""
        if scheme in ("http", "https"):
            if _is_cut_off(rest):
                raise SourceError(redact_url(url), "a password with / ? or # in it, which must be percent-encoded")
            rest, mark, query = rest.partition("#")[0].partition("?")
            rest, query = _quoted(rest), mark + _quoted(query)
        where = rest.rstrip("/")
        if not where.partition("/")[0]:
            raise SourceError(redact_url(url), "names no host or bucket")
        return cls(scheme, where, link, query, rest.endswith("/"))

    def __str__(self) -> str:
        return redact_url(self.url)

    @property
    def url(self) -> str:
        """The URL, with whatever credentials are in it: not for messages."""
        return f"{self.scheme}://{self.where}{self.query}"

    @property
    def name(self) -> str:
        """The last part."""
        last = self.where.rpartition("/")[2]
        return unquote(last) if self.is_http else last

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> RemotePath:
        """The directory; a host or bucket is its own."""
        return replace(self, where=self.where.rpartition("/")[0] or self.where, folder=True)

    def with_name(self, name: str) -> RemotePath:
        """Return another place in the same directory."""
        return self.parent.joinpath(name)

    def with_suffix(self, suffix: str) -> RemotePath:
        """Return the place whose name ends otherwise."""
        return self.with_name(self.name.removesuffix(self.suffix) + suffix)

    def joinpath(self, *names: str) -> RemotePath:
        """Return a place below this directory; names come as they are in a file, not percent-encoded."""
        parts = [part for name in names for part in name.split("/")]
        below = [quote(_bytes(part), safe="") if self.is_http else part for part in parts]
        return replace(self, where="/".join((self.where, *below)), folder=False)

    def is_inside(self, directory: RemotePath) -> bool:
        """Whether the path leads to a place below `directory`."""
        below = self.where.removeprefix(directory.where + "/")
        return below != self.where and not {"", ".", ".."} & set(below.split("/"))

    def is_file(self) -> bool:
        """Whether a file is there that may be read."""
        return self.link.has(self.url)

    def entries(self) -> list[Entry]:
        """Return what is in this directory.

        Raises:
            SourceError: it cannot be listed.
        """
        return self.link.listing(self.url if self.query else self.url + "/")

    @property
    def is_http(self) -> bool:
        """Whether the scheme is HTTP, which knows no directories."""
        return self.scheme in ("http", "https")

    @property
    def is_repository(self) -> bool:
        """Whether this is a repository of the Hugging Face Hub, not a file or directory in it."""
        typed = self.where.startswith(("models/", "datasets/", "spaces/", "buckets/"))
        return self.scheme == "hf" and self.where.count("/") <= 1 + typed


def _on_the_hub(url: str) -> str:
    """Return the ``hf://`` URL of a page of the Hugging Face Hub about a repository, or about a file in one.

    Pages are what people copy out of a browser. What is served as a file (``/resolve/``) stays as it is.

    >>> _on_the_hub("https://huggingface.co/org/model/blob/main/a.gguf"), _on_the_hub("https://hf.co/org/model")
    ('hf://org/model@main/a.gguf', 'hf://org/model')
    """
    page = _PAGE.fullmatch(url)
    if page is None or page["repository"].startswith(("api/", "datasets/", "spaces/", "docs/")):
        return url
    revision = f"@{page['revision']}" if page["revision"] else ""
    return f"hf://{page['repository']}{revision}{unquote(page['below'] or '').rstrip('/')}"


def _is_cut_off(rest: str) -> bool:
    """Whether what follows the scheme has a password that a URL ends at: its beginning would be shown as a port."""
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    _, colon, port = authority.rpartition("]")[2].partition(":")
    return bool(colon) and not port.isdecimal() and "@" in rest and "@" not in authority


def _quoted(text: str) -> str:
    """Percent-encode what must not be in a URL, and nothing else: signatures are made over the URL as it is."""
    return quote(_bytes(text), safe="%/:=&?~#+!$,;'@()*[]")


def _bytes(text: str) -> bytes:
    """Return text as UTF-8; what a command line made of other bytes as these, half a surrogate pair as its own."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")

"""Whether a built site holds together: every link and anchor leads somewhere, nothing is loaded from a network."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_REMOTE = re.compile(r"^(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
_CSS_ADDRESS = re.compile(r"(?:url\(\s*|@import\s+)['\"]?([^'\")\s;]+)")
LOADS = {"src", "srcset", "data", "poster", "background"}  # attributes that make a browser fetch something
RELATIONS = {"stylesheet", "icon", "shortcut icon", "preload", "prefetch", "preconnect", "dns-prefetch", "modulepreload",
             "manifest"}  # <link rel=...> that make a browser fetch something


@dataclass
class Page(HTMLParser):
    """What one HTML page links to, loads and can be linked at."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note ids, links and what is loaded."""
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if "style" in values:
            self.loads += _CSS_ADDRESS.findall(values["style"])
        for name, value in values.items():
            if name in LOADS and tag not in ("a", "input"):
                self.loads += [part.split()[0] for part in value.split(",")] if name == "srcset" else [value]
            elif name in ("href", "xlink:href"):
                if tag in ("image", "use") or (tag == "link" and values.get("rel", "").lower() in RELATIONS):
                    self.loads.append(value)
                elif tag in ("a", "area", "link"):
                    self.links.append(value)


def read(path: Path) -> Page:
    """Parse one page."""
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def problems(site: Path) -> list[str]:
    """What is wrong with the links of a site in words, empty when all is well."""
    site = site.resolve()
    pages = {path: read(path) for path in sorted(site.rglob("*.html"))}
    found = [] if pages else [f"{site} holds no page"]
    for path, page in pages.items():
        name = path.relative_to(site)
        for address in page.loads:
            if _REMOTE.match(address):
                found.append(f"{name} loads {address} from the network")
            elif not address.startswith("data:"):
                found += [f"{name} loads {problem}" for problem in leads(address, path, site, pages)]
        for address in page.links:
            if not urlsplit(address).scheme and not address.startswith("//"):
                found += [f"{name} links to {problem}" for problem in leads(address, path, site, pages)]
    for path in sorted(site.rglob("*.css")):
        for address in _CSS_ADDRESS.findall(path.read_text(encoding="utf-8")):
            name = path.relative_to(site)
            if _REMOTE.match(address):
                found.append(f"{name} loads {address} from the network")
            elif not address.startswith(("data:", "#")):
                found += [f"{name} loads {problem}" for problem in leads(address, path, site, pages)]
    return found


def leads(address: str, path: Path, site: Path, pages: dict[Path, Page]) -> list[str]:
    """What is wrong with a relative address on the page at `path`, empty when it leads somewhere."""
    parts = urlsplit(address)
    if address.startswith("/"):
        return [f"{address}: an absolute path does not work from the file system"]
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.is_relative_to(site):
        return [f"{address}, outside of the site"]
    if not target.is_file():
        return [f"{address}, which does not exist"]
    anchor = unquote(parts.fragment)
    if anchor and target in pages and anchor not in pages[target].anchors:
        return [f"{address}, an anchor that the page does not have"]
    return []

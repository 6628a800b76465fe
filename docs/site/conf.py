"""How `make docs` makes the site: Sphinx reads the Markdown files where they stand. See ADR 0045."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from sphinx.application import Sphinx

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
FRONT: Final = "README"

NAVIGATION: Final = {
    FRONT: {
        "Start": ["/docs/index", "/docs/approving"],
        "Guides": [
            "/docs/events",
            "/docs/decisions",
            "/docs/rules",
            "/docs/channels",
            "/docs/templates",
            "/docs/translating",
            "/docs/gates",
            "/docs/plugins",
        ],
        "Operations": [
            "/docs/operations",
            "/docs/console",
            "/docs/runbook",
            "/docs/upgrading",
            "/docs/scaling",
            "/docs/performance",
        ],
        "Security and reliability": [
            "/docs/security",
            "Reporting a weakness </SECURITY>",
            "/docs/reliability",
            "/docs/chaos",
        ],
        "Reference": [
            "/docs/configuration",
            "/docs/commands",
            "/docs/contract/README",
            "/docs/contract/receipt",
            "/docs/contract/audit",
        ],
        "Development": ["/docs/architecture", "/CONTRIBUTING", "/CHANGELOG"],
    },
    "docs/channels": {"Types": ["/docs/channels/*"]},
    "docs/architecture": {"Decisions": ["/docs/adr/*"]},
}
"""Sidebar entries below each page, as a newcomer reads them; the build fails for a page that is not listed."""


def declared_version() -> str:
    found = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert found  # noqa: S101 - the build has no other way to say so
    return found[1]


def add_navigation(_: Sphinx, page: str, source: list[str]) -> None:
    """Sidebar entries, added as the page is read: the file itself stays plain Markdown."""
    for caption, pages in NAVIGATION.get(page, {}).items():
        entries = "\n".join(pages)
        source[0] += f"\n```{{toctree}}\n:hidden:\n:glob:\n:caption: {caption}\n\n{entries}\n```\n"


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_navigation)


project = "notifyd"
release = declared_version()
html_title = f"notifyd {release}"
copyright = ""  # noqa: A001 - Sphinx's name for it
html_show_copyright = False

root_doc = FRONT
include_patterns = ["*.md", "docs/**.md"]
exclude_patterns = [".*", "build", "notifyd", "plugins", "tests"]
source_suffix = {".md": "markdown"}
extensions = ["myst_parser", "sphinx_copybutton"]

# The same anchors as on GitHub.
myst_heading_anchors = 6
nitpicky = True
highlight_language = "none"  # of blocks that are only indented
copybutton_exclude = ".linenos, .gp, .go"  # prompts and what a command printed

smartquotes = False  # a quote may be meant to be copied

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_additional_pages = {"index": "front.html"}
templates_path = ["templates"]
html_copy_source = False
html_show_search_summary = False  # a page that is opened as a file may not fetch others
html_show_sourcelink = False
html_theme_options = {"top_of_page_buttons": []}

"""Reports of load runs: a page that opens offline, Markdown, JSON. Pure: runs in, text out.

Imports plotly; so only the commands that need it import this.
"""

from __future__ import annotations

from koprogo_deploy.report.page import html
from koprogo_deploy.report.text import as_json, markdown

__all__ = ["as_json", "html", "markdown"]

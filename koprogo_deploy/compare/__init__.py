"""Before and after, from repeated runs, with their noise: `groups({label: [Run, …]})`. Pure."""

from __future__ import annotations

from koprogo_deploy.compare.comparison import Comparison, groups, interleave
from koprogo_deploy.compare.original import recorded

__all__ = ["Comparison", "groups", "interleave", "recorded"]

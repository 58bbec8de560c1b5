"""Watching a host: a probe runs there over SSH, and its samples arrive here once a second."""

from koprogo_deploy.monitor.watch import Monitor

__all__ = ["Monitor"]

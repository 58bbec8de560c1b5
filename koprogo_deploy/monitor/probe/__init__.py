"""Runs on the host, as root, with Python's standard library only: looks once an interval and
prints one JSON line each time, a `runs.sample.Sample`.

It lives as long as its standard input: when the watcher goes, however it goes, so does this.

What looking costs is kept low: files stay open and are read again from their beginning, the
engine is asked only after it said that a container came or went, no program is started, and the
database answers one prepared query over one connection on its own socket.

A value that cannot be read is null and its reason is in `unread`; nothing is guessed.

The modules reach the host as text, in this order, and import nothing but the standard library
and each other.
"""

MODULES = ("parse", "keep", "groups", "host", "engine", "postgres", "traefik", "loop")

"""A stand-in for the KoproGo backend image. It is NOT part of what is deployed to production.

It keeps the HTTP, database and start-up contract of KoproGo's Rust API (revision 3cb6a5b5, the
one whose realistic seed works; see reference/koprogo.md), its faults included, so that the
deploy can be tried and tested where the real image cannot be pulled. One setting puts the real
image in its place. None of KoproGo's code is in here.

STANDIN_FAULTS            comma list of further faults, see faults.py
STANDIN_EXTRA_MIGRATIONS  a folder of migrations layered over the image's own
"""

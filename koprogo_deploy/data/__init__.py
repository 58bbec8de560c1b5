"""`koprogo-data`, which runs on the host: scratch server, dumps, content hashes, backups.

Installed below the install root as it stands here, with those modules of the package that it
shares (`machine.DATA_MODULES`): the standard library alone, Python 3.11 to 3.13.
"""

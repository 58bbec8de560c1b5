"""`koprogo debug`: what the database and the logs say about a slow or failing site.

Everything here reads. The database is asked as `koprogo_observer`, a role that cannot write and
cannot read a password or a token (koprogo_deploy/database.py); the logs are Docker's. `ask` and
`logs.read` touch the host, the rest is pure: SQL text, parsing, decisions.
"""

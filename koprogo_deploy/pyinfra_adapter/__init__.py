"""Everything that leans on pyinfra's inside, gevent or paramiko, behind names of our own.

pyinfra is about to leave gevent and paramiko for asyncio and asyncssh: what that breaks is here.
The rest of the project uses what pyinfra documents and nothing else; the list of it is in
tests/unit/test_pyinfra_adapter.py.
"""

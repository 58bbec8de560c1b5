"""Sandbox: the VPS in a box. What the box itself decides (ports, certificates, image tags) comes
from inventories/sandbox.py, which reads what `make sandbox-up` wrote.
"""

environment = "sandbox"

domain = "koprogo.localhost"
api_domain = "api.koprogo.localhost"
tls = "files"

seed_enabled = True

# The box shares its kernel with the machine it runs on: what is not of its own network
# namespace is the machine's, and is left alone.
swap = None
time_synchronisation = False
sysctl = {
    "net.core.somaxconn": "4096",
    "net.ipv4.tcp_syncookies": "1",
    "net.ipv4.conf.all.accept_redirects": "0",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.all.accept_source_route": "0",
}

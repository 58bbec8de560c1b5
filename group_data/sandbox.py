"""Sandbox: a VPS on this machine. What it decides itself (ports, certificates, image tags; in a box
also swap, clock and sysctl) comes from inventories/sandbox.py, which reads what `make sandbox-up`
wrote.
"""

environment = "sandbox"

domain = "koprogo.localhost"
api_domain = "api.koprogo.localhost"
tls = "files"

seed_enabled = True

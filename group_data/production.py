"""Production: what differs from all.py. Fill in the domains and your address."""

environment = "production"
ssh_known_hosts_file = ".known_hosts/production"  # written from ssh_host_key by each run

domain = "koprogo.example.invalid"
api_domain = "api.koprogo.example.invalid"
cors_origins = ["https://koprogo.example.invalid"]
acme_email = "you@example.invalid"

superadmin_addresses = []  # ["203.0.113.7"]: your own, or the superadmin's pages stay closed

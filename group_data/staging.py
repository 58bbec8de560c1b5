"""Staging: production's road with seeded data and a certificate of Let's Encrypt's test CA."""

environment = "staging"
ssh_known_hosts_file = ".known_hosts/staging"  # written from ssh_host_key by each run

domain = "staging.koprogo.example.invalid"
api_domain = "api.staging.koprogo.example.invalid"
cors_origins = ["https://staging.koprogo.example.invalid"]
acme_email = "you@example.invalid"
acme_server = "https://acme-staging-v02.api.letsencrypt.org/directory"

seed_enabled = True

"""Staging: production's road with seeded data and a certificate of Let's Encrypt's test CA."""

environment = "staging"
ssh_known_hosts_file = ".known_hosts/staging"  # written from ssh_host_key by each run

domain = "staging.koprogo.example.invalid"
api_domain = "api.staging.koprogo.example.invalid"
cors_origins = ["https://staging.koprogo.example.invalid"]
acme_email = "you@example.invalid"
# What the test CA signs no browser trusts. So that smoke tests and `koprogo status` do: fetch its
# roots (PEM, all in one file) from https://letsencrypt.org/docs/staging-environment/ and name it.
# ca_certificate = "letsencrypt-staging.pem"
acme_server = "https://acme-staging-v02.api.letsencrypt.org/directory"

seed_enabled = True

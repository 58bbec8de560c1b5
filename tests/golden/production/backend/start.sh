#!/bin/sh
# Gives the backend its secrets as the environment variables that KoproGo reads.
set -eu
# Where uploads lie until they are whole; what one that was killed left there goes. The other colour
# may be at work there too, and a full disk is no reason not to start.
mkdir -p "$TMPDIR" && find "$TMPDIR" -type f -mmin +60 -delete || true
secret() { cat "/run/secrets/$1"; }
export DATABASE_URL="postgres://$DATABASE_USER:$(secret database_password)@postgres:5432/koprogo_db"
export JWT_SECRET="$(secret jwt_secret)"
export METRICS_AUTH_TOKEN="$(secret metrics_auth_token)"
export TOTP_ENCRYPTION_KEY="$(secret totp_encryption_key)"
exec "$@"

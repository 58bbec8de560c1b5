#!/bin/sh
# Gives the backend its secrets as the environment variables that KoproGo reads.
set -eu
secret() { cat "/run/secrets/$1"; }
export DATABASE_URL="postgres://koprogo:$(secret database_password)@postgres:5432/koprogo_db"
export JWT_SECRET="$(secret jwt_secret)"
export METRICS_AUTH_TOKEN="$(secret metrics_auth_token)"
export TOTP_ENCRYPTION_KEY="$(secret totp_encryption_key)"
exec "$@"

#!/bin/sh
# Makes the cluster the first time, and becomes the server.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  # Its options are a list of words; the password goes from file to file.
  # shellcheck disable=SC2086
  initdb -D "$PGDATA" --username=postgres --pwfile="$POSTGRES_PASSWORD_FILE" $POSTGRES_INITDB_ARGS
fi
exec "$@"

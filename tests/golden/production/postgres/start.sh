#!/bin/sh
# Makes the cluster the first time, and becomes the server.
set -eu
# A container may be killed at any time, and initdb takes seconds: it works in a folder of its own,
# which has another name once all of it is there. PG_VERSION, by which a cluster is known, moves
# last. So a start after a kill finds a cluster, or none, and never half of one.
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  half=$PGDATA/.half whole=$PGDATA/.whole
  mkdir -p "$PGDATA"
  if [ ! -d "$whole" ]; then
    for each in "$PGDATA"/*; do
      case "$each" in */lost+found | *'/*') continue ;; esac
      echo "$PGDATA is no cluster of Postgres, and not empty: $each is in it" >&2
      exit 1
    done
    rm -rf "$half"
    # Its options are a list of words; the password goes from file to file.
    # shellcheck disable=SC2086
    initdb -D "$half" --username=postgres --pwfile="$POSTGRES_PASSWORD_FILE" $POSTGRES_INITDB_ARGS
    mv "$half" "$whole"
  fi
  chmod 0700 "$PGDATA"
  for each in "$whole"/*; do
    [ "$each" = "$whole/PG_VERSION" ] || mv "$each" "$PGDATA/"
  done
  sync
  mv "$whole/PG_VERSION" "$PGDATA/"
  rmdir "$whole"
fi
exec "$@"

#!/usr/bin/env bash
# The official image's contract: initialise an empty data directory once, then become the server.
set -Eeuo pipefail

# file_env NAME [default]: the value of NAME, or the content of the file in NAME_FILE.
file_env() {
    local name="$1" file="${1}_FILE"
    if [ -n "${!name:-}" ] && [ -n "${!file:-}" ]; then
        echo "error: both $name and $file are set (but are exclusive)" >&2
        exit 1
    fi
    local value="${2:-}"
    if [ -n "${!name:-}" ]; then
        value="${!name}"
    elif [ -n "${!file:-}" ]; then
        value="$(<"${!file}")"
    fi
    export "$name"="$value"
    unset "$file"
}

create_directories() {
    mkdir -p "$PGDATA"
    chmod 00700 "$PGDATA" || :
    mkdir -p /var/run/postgresql || :
    chmod 03775 /var/run/postgresql 2>/dev/null || :
    if [ "$(id -u)" = 0 ]; then
        # chown only what is not yet right: FOWNER and CHOWN may have been dropped.
        find "$PGDATA" \! -user postgres -exec chown postgres '{}' +
        find /var/run/postgresql \! -user postgres -exec chown postgres '{}' +
        if [ -n "${POSTGRES_INITDB_WALDIR:-}" ]; then
            mkdir -p "$POSTGRES_INITDB_WALDIR"
            find "$POSTGRES_INITDB_WALDIR" \! -user postgres -exec chown postgres '{}' +
            chmod 700 "$POSTGRES_INITDB_WALDIR"
        fi
    fi
}

verify_minimum_env() {
    if [ -z "$POSTGRES_PASSWORD" ] && [ "$POSTGRES_HOST_AUTH_METHOD" != trust ]; then
        cat >&2 <<-'END'
			Error: Database is uninitialized and superuser password is not specified.
			       You must specify POSTGRES_PASSWORD to a non-empty value for the
			       superuser, or POSTGRES_HOST_AUTH_METHOD=trust (not recommended).
		END
        exit 1
    fi
    if [ "$POSTGRES_HOST_AUTH_METHOD" = trust ]; then
        echo 'WARNING: POSTGRES_HOST_AUTH_METHOD=trust lets anyone connect without a password' >&2
    fi
}

init_database() {
    local waldir=()
    [ -z "${POSTGRES_INITDB_WALDIR:-}" ] || waldir=(--waldir "$POSTGRES_INITDB_WALDIR")
    # POSTGRES_INITDB_ARGS is a list of shell words, as in the official image.
    eval 'initdb --username="$POSTGRES_USER" --pwfile=<(printf "%s\n" "$POSTGRES_PASSWORD") "${waldir[@]}" '"${POSTGRES_INITDB_ARGS:-}"
}

setup_hba() {
    local method="$POSTGRES_HOST_AUTH_METHOD"
    [ -n "$method" ] || method="$(postgres -C password_encryption "$@")"
    printf '\nhost all all all %s\n' "$method" >> "$PGDATA/pg_hba.conf"
}

process_sql() {
    local database=()
    [ -z "$POSTGRES_DB" ] || database=(--dbname "$POSTGRES_DB")
    PGHOST='' PGHOSTADDR='' psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --no-password --no-psqlrc \
        "${database[@]}" "$@"
}

setup_db() {
    local exists
    exists="$(POSTGRES_DB='' process_sql --dbname postgres --set db="$POSTGRES_DB" --tuples-only \
        <<< "SELECT 1 FROM pg_database WHERE datname = :'db';")"
    if [ -z "$exists" ]; then
        POSTGRES_DB='' process_sql --dbname postgres --set db="$POSTGRES_DB" <<< 'CREATE DATABASE :"db";'
    fi
}

process_init_files() {
    local file
    for file; do
        case "$file" in
            *.sh) if [ -x "$file" ]; then echo "$0: running $file"; "$file"; else echo "$0: sourcing $file"; . "$file"; fi ;;
            *.sql) echo "$0: running $file"; process_sql -f "$file" ;;
            *.sql.gz) echo "$0: running $file"; gunzip -c "$file" | process_sql ;;
            *.sql.xz) echo "$0: running $file"; xzcat "$file" | process_sql ;;
            *.sql.zst) echo "$0: running $file"; zstd -dc "$file" | process_sql ;;
            *) echo "$0: ignoring $file" ;;
        esac
    done
}

temp_server() {
    # Not reachable from outside until everything is in place.
    PGUSER="${PGUSER:-$POSTGRES_USER}" pg_ctl -D "$PGDATA" -w "$@"
}

setup_env() {
    file_env POSTGRES_PASSWORD
    file_env POSTGRES_USER postgres
    file_env POSTGRES_DB "$POSTGRES_USER"
    file_env POSTGRES_INITDB_ARGS
    : "${POSTGRES_HOST_AUTH_METHOD:=}"
}

wants_help() {
    local arg
    for arg; do
        case "$arg" in -'?' | --help | --describe-config | -V | --version) return 0 ;; esac
    done
    return 1
}

main() {
    if [ "${1:0:1}" = '-' ]; then
        set -- postgres "$@"
    fi
    if [ "$1" = postgres ] && ! wants_help "$@"; then
        create_directories
        if [ "$(id -u)" = 0 ]; then
            exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$BASH_SOURCE" "$@"
        fi
        setup_env
        if [ ! -s "$PGDATA/PG_VERSION" ]; then
            verify_minimum_env
            ls /docker-entrypoint-initdb.d/ > /dev/null
            shift
            init_database
            setup_hba "$@"
            export PGPASSWORD="${PGPASSWORD:-$POSTGRES_PASSWORD}"
            temp_server -o "$(printf '%q ' -c listen_addresses='' -p "${PGPORT:-5432}" "$@")" start
            setup_db
            process_init_files /docker-entrypoint-initdb.d/*
            temp_server -m fast stop
            unset PGPASSWORD
            set -- postgres "$@"
            printf '\nPostgreSQL init process complete; ready for start up.\n\n'
        else
            printf '\nPostgreSQL Database directory appears to contain a database; Skipping initialization\n\n'
        fi
    fi
    exec "$@"
}

shopt -s nullglob
main "$@"

"""A major version of Postgres up, by dump and restore into a new cluster; and the way back.

A cluster is a data directory. The one that serves is the volume's own directory; the new one is
made beside it and takes its place by a rename. The old one stays beside it, whole, until it is told
to go. While they change places, and until what serves then was verified, a file says so: a run
that was cut is taken back, or ended, by the next one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from koprogo_deploy import database
from koprogo_deploy.data import backup, dump, hashes, live, scratch, tree
from koprogo_deploy.data.host import (
    DATABASE,
    MB,
    POSTGRES,
    UPGRADE,
    Config,
    Failed,
    keep,
    owner_sql,
    run,
    settled,
    sql,
)

VOLUME = "koprogo_postgres_data"
NEW = "koprogo_new"  # a cluster that does not serve yet
KEPT = "koprogo_before_"  # one that served: until when, and of which version
DUMP = "koprogo_upgrade.dump"
MAKER = "koprogo-postgres-new-1"
DATA = "/var/lib/postgresql/data"  # in every container
EMPTY = 64 * MB  # of a cluster without data, its first WAL included

CHANGING, SERVING = "changing", "serving"
# Whoever loses one of these logs in again; nothing that people wrote is in there.
SESSIONS = frozenset({"public.refresh_tokens"})

_ROLES = f"""
SELECT coalesce(json_object_agg(rolname, json_build_object(
  'attributes', ARRAY[rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin,
                      rolreplication, rolbypassrls],
  'connections', rolconnlimit,
  'password', encode(sha256(convert_to(coalesce(rolpassword, ''), 'UTF8')), 'hex'),
  'memberships', (SELECT coalesce(json_agg(DISTINCT roleid::regrole::text), '[]')
                  FROM pg_auth_members WHERE member = r.oid),
  'settings', (SELECT coalesce(json_agg(coalesce(datname, '') || ' ' || s ORDER BY datname, s),
               '[]') FROM pg_db_role_setting LEFT JOIN pg_database d ON d.oid = setdatabase,
               unnest(setconfig) AS s
               WHERE setrole = r.oid AND coalesce(datname, '{DATABASE}') = '{DATABASE}'))), '{{}}')
FROM pg_authid AS r WHERE rolname <> 'postgres' AND rolname !~ '^pg_'
"""  # noqa: S608 - a name of ours

# Not the catalogs', no extension's, and not the guard: that is brought, not restored.
_OWN = """nspname !~ '^pg_' AND nspname NOT IN ('information_schema', '{schema}') AND NOT EXISTS (
    SELECT 1 FROM pg_depend
    WHERE classid = '{catalog}'::regclass AND objid = {oid} AND deptype = 'e')"""
_OWN_CLASS = _OWN.format(catalog="pg_class", oid="c.oid", schema=database.SCHEMA)
_OWN_CONSTRAINT = _OWN.format(catalog="pg_constraint", oid="c.oid", schema=database.SCHEMA)
_OWN_FUNCTION = _OWN.format(catalog="pg_proc", oid="p.oid", schema=database.SCHEMA)
_OBJECTS = f"""
SELECT coalesce(json_agg(o ORDER BY o), '[]') FROM (
  SELECT CASE relkind WHEN 'i' THEN 'index ' WHEN 'S' THEN 'sequence ' ELSE 'view ' END
         || nspname || '.' || relname AS o
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace LEFT JOIN pg_index ON
         indexrelid = c.oid
   WHERE relkind IN ('i', 'S', 'v', 'm') AND indisvalid IS NOT FALSE AND {_OWN_CLASS}
  UNION ALL
  SELECT 'constraint ' || conrelid::regclass || ' ' || conname
    FROM pg_constraint c JOIN pg_namespace n ON n.oid = connamespace
   WHERE contype IN ('c', 'f', 'p', 'u', 'x') AND conrelid <> 0 AND {_OWN_CONSTRAINT}
  UNION ALL
  SELECT 'trigger ' || tgrelid::regclass || ' ' || tgname FROM pg_trigger
   WHERE NOT tgisinternal AND tgname NOT IN ('{database.TRIGGER}', '{database.FORMER_TRIGGER}')
  UNION ALL
  SELECT 'function ' || p.oid::regprocedure
    FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE {_OWN_FUNCTION}
  UNION ALL
  SELECT 'extension ' || extname FROM pg_extension) AS every
"""  # noqa: S608 - of ours
_OTHERS = f"""
SELECT coalesce(json_agg(datname ORDER BY datname), '[]') FROM pg_database
WHERE NOT datistemplate AND datname NOT IN ('postgres', '{DATABASE}')"""  # noqa: S608
_SEQUENCES = """
SELECT coalesce(json_object_agg(schemaname || '.' || sequencename, last_value), '{}')
FROM pg_sequences"""
_EXTENSIONS = "SELECT coalesce(json_agg(extname ORDER BY extname), '[]') FROM pg_extension"
_AVAILABLE = "SELECT coalesce(json_agg(name), '[]') FROM pg_available_extensions"


# --- looking -------------------------------------------------------------------------------------


def home() -> Path:
    """Where the cluster that serves lies on the host."""
    return Path(run("docker", "volume", "inspect", "-f", "{{.Mountpoint}}", VOLUME).strip())


def manifest(config: Config, release: str) -> dict[str, Any]:
    """A release's, or that of `current`.

    Raises:
        Failed: there is none.
    """
    name = release if release == "current" else f"releases/{release}"
    try:
        text = (config.root / name / "manifest.json").read_text(encoding="utf-8")
    except OSError as error:
        raise Failed(f"no release {release} on the host: {error}") from None
    found: dict[str, Any] = json.loads(text)
    return found


def version_of(cluster: Path) -> int:
    """Major version of a cluster's files.

    Raises:
        Failed: it is no cluster.
    """
    try:
        return int(tree.first_line(cluster / "PG_VERSION"))
    except OSError as error:
        raise Failed(f"{cluster} is no cluster of Postgres: {error}") from None
    except ValueError:  # whose words would show what is in there
        raise Failed(f"{cluster} is no cluster of Postgres: PG_VERSION is no number") from None


def version_running(container: str) -> int:
    """Major version of a server."""
    return int(sql(container, "SHOW server_version_num", "postgres")) // 10000


def state(config: Config) -> dict[str, Any] | None:
    """What a run that was cut, or is not verified yet, wrote down; None if all is settled."""
    file = config.root / UPGRADE
    if not file.exists():
        return None
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def kept_name(moment: datetime, version: int) -> str:
    """What a cluster is called that served until this moment: the newest sorts last. Pure."""
    return f"{KEPT}{moment:%Y%m%dt%H%M%S}_{version}"


def kept() -> list[str]:
    """Clusters that served before, oldest first; of each what is known of it can be read."""
    parent = home().parent
    names = (note.stem for note in parent.glob(f"{KEPT}*.json"))
    return sorted(name for name in names if (parent / name).is_dir())


def about(name: str) -> dict[str, Any]:
    """What was written down of a kept cluster; `tables` hashed when it stopped serving."""
    text = (home().parent / f"{name}.json").read_text(encoding="utf-8")
    first, _, tables = text.partition("\n")
    return {**json.loads(first), "tables": json.loads(tables)}


def objects(container: str) -> list[str]:
    """Names of indexes, constraints, triggers, functions, views, sequences and extensions."""
    found: list[str] = json.loads(sql(container, _OBJECTS))
    return found


def roles(container: str) -> dict[str, Any]:
    """Every role but the superuser: what it may, whose member it is, its settings and password."""
    found: dict[str, Any] = json.loads(sql(container, _ROLES, "postgres"))
    return found


def different(
    wanted: Mapping[str, Any], found: Mapping[str, Any], objects: tuple[list[str], list[str]]
) -> list[str]:
    """How a new cluster differs from the old one, a line each; empty when it does not. Pure.

    Args:
        wanted: `tables` and `roles` of the old one.
        found: the same of the new one.
        objects: names in the old one and in the new one.
    """
    lines = hashes.differences(wanted["tables"], found["tables"], "table")
    for name in sorted({*wanted["roles"], *found["roles"]}):
        old, new = wanted["roles"].get(name), found["roles"].get(name)
        if old is None or new is None:
            lines.append(f"role {name} is in {'the new' if old is None else 'the old'} one alone")
        else:
            parts = [part for part in old if old[part] != new[part]]
            lines += [f"role {name} differs in its {part}" for part in parts]
    before, after = map(set, objects)
    lines += [f"{each} is missing" for each in sorted(before - after)]
    return lines + [f"{each} is not in the old one" for each in sorted(after - before)]


def lost(since: Mapping[str, int]) -> dict[str, int]:
    """What of the tables that changed would be a loss: all but sessions. Pure."""
    return {name: rows for name, rows in since.items() if name not in SESSIONS}


# --- beforehand, while the site serves -----------------------------------------------------------


def needs(size: int) -> int:
    """Bytes that an upgrade takes at most: the new cluster and its WAL, and a dump. Pure.

    Args:
        size: of the database.
    """
    return 3 * size + EMPTY


def prepare(config: Config, release: str) -> dict[str, Any]:
    """Rehearse the upgrade on a copy of the data, and make an empty cluster for the real one.

    Nothing that serves is touched.

    Args:
        config: for the install root and the memory limit.
        release: id of the one whose Postgres is the new one.

    Raises:
        Failed: it would not work; says why, and nothing of it is left.
    """
    began = time.monotonic()
    settled(config, UPGRADE)
    discard()
    scratch.down(config)
    wanted = manifest(config, release)
    definition = wanted["definitions"]["postgres"]
    image, asked = definition["image"], int(wanted["values"]["postgres_major"])
    old = version_running(POSTGRES)
    if asked <= old:
        raise Failed(f"the data is of Postgres {old}, and the release of {asked}: not a version up")
    if others := json.loads(sql(POSTGRES, _OTHERS, "postgres")):
        raise Failed(
            f"the cluster has further databases, which would stay behind: {', '.join(others)}. "
            "Those of before a restore go by deploys/restore.py --data backup=drop_old"
        )
    size = dump.size()
    dump.room(home().parent, needs(size), "the upgrade (the new cluster, its WAL and a dump)")
    try:
        make(definition, config.scratch_memory)
        new = version_of(home().parent / NEW)
        if new != asked:
            raise Failed(f"the image {image} is of Postgres {new}, and postgres_major says {asked}")
        copied = rehearse(config, image)
    except BaseException:
        with contextlib.suppress(Failed):
            discard()
        raise
    return {
        "from": old,
        "to": new,
        "tables": len(copied["tables"]),
        "rows": sum(table["rows"] for table in copied["tables"].values()),
        "bytes": size,
        "copied": copied["seconds"],
        "seconds": round(time.monotonic() - began, 1),
    }


def rehearse(config: Config, image: str) -> dict[str, Any]:
    """Bring a copy of the data into a scratch server of the new image, and compare everything.

    Raises:
        Failed: it does not work there, or is not the same.
    """
    try:
        scratch.up(config, image, passwords=True)
        installed = set(json.loads(sql(POSTGRES, _EXTENSIONS)))
        if lacking := sorted(installed - set(json.loads(sql(scratch.NAME, _AVAILABLE)))):
            raise Failed(f"the image {image} lacks extensions in use: {', '.join(lacking)}")
        copied = dump.copy(hashed=True)
        owner_sql(scratch.NAME, "ANALYZE")
        wanted = {"tables": copied["tables"], "roles": roles(POSTGRES)}
        found = {"tables": hashes.tables(scratch.NAME), "roles": roles(scratch.NAME)}
        refuse(different(wanted, found, (objects(POSTGRES), objects(scratch.NAME))), "the copy")
        return copied
    finally:
        scratch.down(config)


def refuse(problems: list[str], what: str) -> None:
    """Refuse to go on with what is not the same.

    Raises:
        Failed: there are problems.
    """
    if problems:
        raise Failed(f"{what} is not what the old cluster holds: {backup.told(problems)}")


def maker_command(definition: Mapping[str, Any], memory: int, program: str) -> list[str]:
    """Command line of a container of the new image, on the new cluster's directory. Pure.

    Args:
        definition: Compose's, of the new Postgres.
        memory: bytes, at most.
        program: of the image; its arguments come behind.
    """
    mounts = [f"{home().parent / NEW}:{DATA}"]
    mounts += [v for v in definition["volumes"] if v.startswith("/")]
    mounts += [f"{file}:/run/secrets/{Path(file).name}:ro" for file in definition["secrets"]]
    return [
        *("docker", "run", "--rm", "--name", MAKER, "--pull", "never", "--network", "none"),
        *("--memory", str(memory), "--memory-swap", str(memory), "--cpu-shares", "128"),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges:true", "--pids-limit", "128"),
        *("--user", definition["user"], "--read-only"),
        *("--tmpfs", "/tmp:size=16m,mode=1777,noexec,nosuid,nodev"),  # noqa: S108
        *(word for mount in mounts for word in ("-v", mount)),
        *("--entrypoint", program, definition["image"]),
    ]


def make(definition: Mapping[str, Any], memory: int) -> None:
    """An empty cluster beside the one that serves, as the image's entry point would make it.

    Beforehand, since it takes some seconds; and then the server is asked whether it takes its
    configuration, which may have settings that a new version does not know.
    """
    there, new = home(), home().parent / NEW
    new.mkdir(mode=0o700)
    os.chown(new, there.stat().st_uid, there.stat().st_gid)
    environment = definition["environment"]
    options = shlex.split(environment["POSTGRES_INITDB_ARGS"])
    words = (f"--pwfile={environment['POSTGRES_PASSWORD_FILE']}", *options)
    run(*maker_command(definition, memory, "initdb"), "-D", DATA, "--username=postgres", *words)
    configured = [word for word in definition["command"] if word != "postgres"]
    asked = ("-D", DATA, "-C", "max_connections", *configured)
    try:
        run(*maker_command(definition, memory, "postgres"), *asked)
    except Failed as error:
        raise Failed(f"the new Postgres does not take its configuration: {error}") from None


def discard() -> None:
    """Remove a cluster that was made and does not serve, and a dump."""
    parent = home().parent
    tree.remove(parent / NEW)
    (parent / DUMP).unlink(missing_ok=True)


# --- the change, under the maintenance page ------------------------------------------------------


def change(
    config: Config, release: str, back: bool = False, anyway: bool = False
) -> dict[str, Any]:
    """Have another cluster serve: the new one with the data in it, or the one that served before.

    Backends stop for it and start again. If it fails, what served before serves again.

    Args:
        config: for the install root.
        release: id of the one whose Postgres serves then.
        back: take the newest cluster that served before.
        anyway: also if something was written since that it does not have.

    Raises:
        Failed: it could not be; what served before serves.
    """
    settled(config, UPGRADE)
    scratch.down(config)  # from here on its line of memory is ours
    began, now = time.monotonic(), datetime.now(UTC)
    there, serving, wanted = home(), manifest(config, "current"), manifest(config, release)
    names = kept() if back else [NEW]
    if not names:
        raise Failed("no cluster of before an upgrade is kept here")
    coming, old = names[-1], version_of(there)
    new, asked = version_of(there.parent / coming), int(wanted["values"]["postgres_major"])
    if new != asked:
        raise Failed(f"the cluster is of Postgres {new}, and release {release} of {asked}")
    cut = {
        "phase": CHANGING,
        "back": back,
        "coming": coming,
        "aside": kept_name(now, old),
        "release": release,
        "from": serving["id"],
        "stopped": live.backends(),
        "kept": {
            "major": old,
            "image": serving["images"]["postgres"],
            "requested": serving["requested"]["postgres"],
            "release": serving["id"],
            "until": now.isoformat(timespec="seconds"),
        },
    }
    remember(config, cut)
    try:
        live.stop(cut["stopped"], 35)
        told = taken(config, cut, anyway) if back else moved(config, cut)
        live.start(cut["stopped"])
        remember(config, {**cut, **told, "phase": SERVING})
    except Exception as error:  # whatever it is, the site has to serve
        try:
            undo(config, cut)
        except Failed as worse:
            raise Failed(f"{error}; and Postgres {old} does not come up again: {worse}") from None
        raise Failed(f"{error}. Postgres {old} serves again, as before") from None
    seconds = round(time.monotonic() - began, 1)
    return {
        "from": old,
        "to": new,
        "kept": cut["aside"],
        "seconds": seconds,
        **told.get("told", {}),
    }


def moved(config: Config, cut: Mapping[str, Any]) -> dict[str, Any]:
    """The data goes into the new cluster, which serves in the place of the old one."""
    file = home().parent / DUMP
    began = time.monotonic()
    dumped = dump.dump(file, compress=0, hashed=True)
    guarded = live.guarded(config)
    wanted = {"tables": dumped["tables"], "roles": roles(POSTGRES)}
    names, at = objects(POSTGRES), json.loads(sql(POSTGRES, _SEQUENCES))
    # Password hashes are in there: they go from one server to the other by pipe alone.
    made = json.loads(sql(POSTGRES, database.roles_query(passwords=True), "postgres"))
    seconds = {"dump": time.monotonic() - began}
    began = time.monotonic()
    run("docker", "stop", "-t", "60", POSTGRES)
    exchange(cut["aside"], cut["coming"])
    up(config, cut["release"])
    seconds["restart"] = time.monotonic() - began
    began = time.monotonic()
    roles_there = f"{database.roles_sql(made)}{database.OWNER_LOGIN_SQL}"
    sql(POSTGRES, database.unlogged(roles_there), "postgres")
    sql(POSTGRES, database.DATABASE_SQL, "postgres")
    dump.restore(file, POSTGRES)
    live.guard(guarded)
    owner_sql(POSTGRES, "ANALYZE")
    seconds["restore"] = time.monotonic() - began
    began = time.monotonic()
    found = {"tables": hashes.tables(POSTGRES), "roles": roles(POSTGRES)}
    problems = different(wanted, found, (names, objects(POSTGRES)))
    if json.loads(sql(POSTGRES, _SEQUENCES)) != at:
        problems.append("sequences stand elsewhere")
    refuse(problems, "the new cluster")
    seconds["compare"] = time.monotonic() - began
    rows = sum(table["rows"] for table in dumped["tables"].values())
    told = {"rows": rows, "steps": {name: round(took, 1) for name, took in seconds.items()}}
    return {"tables": dumped["tables"], "told": told}


def taken(config: Config, cut: Mapping[str, Any], anyway: bool) -> dict[str, Any]:
    """The cluster that served before serves again; what was written since stays in the other."""
    tables = hashes.tables(POSTGRES)
    since = live.rows_since(about(cut["coming"])["tables"], tables)
    if lost(since) and not anyway:
        raise Failed(f"something was written since: {', '.join(lost(since))}")
    logins = json.loads(sql(POSTGRES, database.LOGINS_QUERY, "postgres"))
    run("docker", "stop", "-t", "60", POSTGRES)
    exchange(cut["aside"], cut["coming"])
    up(config, cut["release"])
    # They may be others since.
    for login, verifier in logins.items():
        sql(POSTGRES, database.login_sql(login, verifier), "postgres")
    return {"tables": tables, "told": {"since": since}}


def exchange(aside: str, coming: str) -> None:
    """Rename both clusters; what is renamed already is left, so that it can be run again."""
    there = home()
    if (there.parent / coming).exists():
        if there.exists():
            there.rename(there.parent / aside)
        (there.parent / coming).rename(there)
    descriptor = os.open(there.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def up(config: Config, release: str) -> None:
    """Postgres as a release says, healthy."""
    os.environ["COMPOSE_IGNORE_ORPHANS"] = "true"
    file = str(config.root / "releases" / release / "compose.yaml")
    options = ("--no-deps", "--no-build", "--pull", "never")
    run("docker", "compose", "--progress", "quiet", "-f", file, "up", "-d", *options, "postgres")
    live.until_healthy([POSTGRES])


def undo(config: Config, cut: Mapping[str, Any]) -> None:
    """What served before the change serves again; a new cluster goes.

    Raises:
        Failed: it does not; what was cut stays written down, so that it can be tried again.
    """
    running = live.backends()
    live.stop(running, 35)
    with contextlib.suppress(Failed):  # there may be none
        run("docker", "stop", "-t", "60", POSTGRES)
    exchange(cut["coming"], cut["aside"])
    up(config, cut["from"])
    live.start(sorted({*cut["stopped"], *running}))
    remember(config, None)
    discard()


# --- afterwards ----------------------------------------------------------------------------------


def remember(config: Config, cut: Mapping[str, Any] | None) -> None:
    """Write down that clusters change places; None: all is settled."""
    file = config.root / UPGRADE
    if cut is None:
        file.unlink(missing_ok=True)
    else:
        keep(file, json.dumps(cut))


def resume(config: Config) -> dict[str, Any]:
    """After a run that was cut: one that had not come to its end is taken back."""
    cut = state(config)
    if cut is None:
        return {"was": "settled"}
    if cut["phase"] == CHANGING:
        undo(config, cut)
        return {"was": "taken back", "serves": cut["from"]}
    return {"was": SERVING, "back": cut["back"], "release": cut["release"]}


def take_back(config: Config) -> dict[str, Any]:
    """Have what served before the change serve again, and say what was written since."""
    cut = state(config)
    if cut is None:
        raise Failed("no upgrade waits for its end")
    since: dict[str, int] = {}
    if cut["phase"] == SERVING:
        with contextlib.suppress(Failed):  # it may not answer: that may be why
            since = live.rows_since(cut["tables"], hashes.tables(POSTGRES))
    undo(config, cut)
    return {"serves": cut["from"], "since": since}


def done(config: Config) -> dict[str, Any]:
    """What serves was verified: the other cluster is kept, with what it held."""
    cut = state(config)
    if cut is None or cut["phase"] != SERVING:
        raise Failed("no cluster waits to be verified")
    parent = home().parent
    # By now the backend wrote what it writes at each start, and the smoke tests logged in.
    held = hashes.tables(POSTGRES)
    told = {"name": cut["aside"], **cut["kept"]}
    keep(parent / f"{cut['aside']}.json", f"{json.dumps(told)}\n{json.dumps(held)}\n")
    if cut["back"]:
        (parent / f"{cut['coming']}.json").unlink(missing_ok=True)
    remember(config, None)
    discard()
    return {**told, "bytes": tree.size(parent / cut["aside"])}


def counted() -> dict[str, Any]:
    """The newest kept cluster, and by how many rows each table changed since it stopped serving.

    Raises:
        Failed: none is kept.
    """
    names = kept()
    if not names:
        raise Failed("no cluster of before an upgrade is kept here")
    found = about(names[-1])
    since = live.rows_since(found.pop("tables"), hashes.tables(POSTGRES))
    return {**found, "since": since, "lost": sorted(lost(since))}


def drop(config: Config) -> dict[str, Any]:
    """Let go every cluster that served before; says which, and their bytes."""
    settled(config, UPGRADE)
    discard()
    parent, freed, gone = home().parent, 0, []
    for directory in sorted(parent.glob(f"{KEPT}*")):
        if directory.is_dir():
            freed += tree.size(directory)
            gone.append(directory.name)
            # Its note first: one that is half gone is no cluster to go back to.
            (parent / f"{directory.name}.json").unlink(missing_ok=True)
            tree.remove(directory)
    return {"dropped": gone, "bytes": freed}


def work(config: Config, what: str, release: str, flags: Iterable[str]) -> dict[str, Any]:
    """One command of `koprogo-data upgrade`."""
    match what:
        case "prepare":
            return prepare(config, release)
        case "change":
            return change(config, release, "back" in flags, "anyway" in flags)
        case "resume":
            return resume(config)
        case "undo":
            return take_back(config)
        case "done":
            return done(config)
        case "counted":
            return counted()
        case "drop":
            return drop(config)
    raise AssertionError(what)

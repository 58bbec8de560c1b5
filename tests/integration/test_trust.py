"""Nothing in the application, or in an image, gets more than it was given: attacks that must fail.

Each was a way to the superuser of Postgres, or to root on the host, and ends as it began.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from koprogo_deploy.operations.shell import owner_psql
from tests.integration.rig import ROOT, Rig

KOPROGO = str(Path(sys.executable).with_name("koprogo"))
EVIL = """
CREATE FUNCTION public.evil() RETURNS boolean LANGUAGE plpgsql AS $f$
BEGIN
  IF session_user = 'postgres' OR current_user = 'postgres' THEN
    EXECUTE 'ALTER ROLE koprogo SUPERUSER';
  END IF;
  RETURN true;
END $f$;
"""
EVIL_TRIGGER = f"""{EVIL}
CREATE FUNCTION public.evil_row() RETURNS trigger LANGUAGE plpgsql AS $f$
BEGIN PERFORM public.evil(); RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END; END $f$;
"""
GONE = """
DROP TABLE IF EXISTS public.checked;
DROP FUNCTION IF EXISTS public.evil() CASCADE;
DROP FUNCTION IF EXISTS public.evil_index(integer) CASCADE;
DROP FUNCTION IF EXISTS public.evil_row() CASCADE;
DROP FUNCTION IF EXISTS public.evil_text(bigint, text) CASCADE;
DROP FUNCTION IF EXISTS public.evil_check(integer) CASCADE;
"""
SUPERUSERS = "SELECT string_agg(rolname, ' ' ORDER BY rolname) FROM pg_roles WHERE rolsuper"


def koprogo(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [KOPROGO, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def status() -> tuple[int, list[str]]:
    code, said = koprogo("status", "sandbox", "--json")
    return code, json.loads(said)["problems"]


def as_application(rig: Rig, statements: str) -> str:
    """In the session that the backend's SQL has, as whoever finds a hole in it would."""
    return rig.on_host(owner_psql(), stdin=statements).strip()


@pytest.fixture
def mine(rig: Rig) -> Iterator[Rig]:
    yield rig
    rig.sql(f"{GONE}ALTER ROLE koprogo NOSUPERUSER; ALTER ROLE koprogo RESET application_name;")
    rig.sql("ALTER ROLE koprogo RESET search_path")
    assert rig.sql(SUPERUSERS) == "postgres"


def test_an_operator_of_the_applications_is_not_taken_for_postgres_own(mine: Rig) -> None:
    as_application(
        mine,
        EVIL
        + """
CREATE FUNCTION public.evil_text(bigint, text) RETURNS text LANGUAGE plpgsql AS $f$
BEGIN PERFORM public.evil(); RETURN $1::text OPERATOR(pg_catalog.||) $2; END $f$;
CREATE OPERATOR public.|| (LEFTARG = bigint, RIGHTARG = text, FUNCTION = public.evil_text);
""",
    )
    assert koprogo("plan", "sandbox")[0] == 0
    code, said = koprogo("smoke", "sandbox", "--", "-k", "superuser or migrated or observer")
    assert mine.sql(SUPERUSERS) == "postgres"
    assert code == 1
    assert "operator public.||(bigint,text)" in said, "it is said that it is there"
    code, problems = status()
    assert code == 1
    assert any("operator public.||(bigint,text)" in problem for problem in problems)


def test_what_is_built_upon_the_migrations_table_runs_in_no_look(mine: Rig) -> None:
    as_application(
        mine,
        EVIL
        + """
CREATE FUNCTION public.evil_index(integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS $f$
BEGIN PERFORM public.evil(); RETURN 1; END $f$;
CREATE INDEX evil ON public._sqlx_migrations ((version + public.evil_index(1)));
CREATE STATISTICS public.evil ON (version + public.evil_index(1)), success
  FROM public._sqlx_migrations;
""",
    )
    assert koprogo("plan", "sandbox")[0] == 0
    assert koprogo("smoke", "sandbox", "--", "-k", "superuser or migrated or observer")[0] == 0
    assert status() == (0, [])
    assert mine.deploy(deploy="backup").code == 0
    assert mine.sql(SUPERUSERS) == "postgres"


def test_a_trigger_of_the_applications_fires_as_the_application(mine: Rig) -> None:
    as_application(
        mine,
        EVIL_TRIGGER
        + """
CREATE TRIGGER evil BEFORE DELETE OR INSERT ON organizations
  FOR EACH ROW EXECUTE FUNCTION public.evil_row();
""",
    )
    assert koprogo("seed", "clear", "sandbox", "--yes", "sandbox")[0] == 0
    assert mine.deploy(deploy="seed").code == 0
    assert mine.sql("SELECT count(*) > 0 FROM organizations") == "t"
    assert mine.sql(SUPERUSERS) == "postgres"


CHECKED = """
CREATE FUNCTION public.evil_check(integer) RETURNS boolean LANGUAGE plpgsql AS $f$
BEGIN RETURN public.evil(); END $f$;
CREATE TABLE public.checked (i integer CHECK (public.evil_check(i)));
INSERT INTO public.checked VALUES (1);
"""


def test_a_copy_is_restored_without_running_anything_of_the_applications_as_superuser(
    mine: Rig,
) -> None:
    as_application(mine, EVIL + CHECKED)
    # A role may give itself settings, and its roles come along.
    mine.sql(r"""
SET SESSION AUTHORIZATION koprogo;
ALTER ROLE koprogo SET application_name = E'x\n';
ALTER ROLE koprogo SET search_path = '; ALTER ROLE koprogo SUPERUSER; --';
""")
    scratch = """
set -e
/opt/koprogo/bin/koprogo-data scratch up >/dev/null
trap '/opt/koprogo/bin/koprogo-data scratch down >/dev/null' EXIT
/opt/koprogo/bin/koprogo-data copy >/dev/null
docker exec koprogo-scratch-1 psql -XqAt -U postgres -d koprogo_db \\
  -c 'SELECT count(*) FROM public.checked' \\
  -c "SELECT string_agg(rolname, ' ') FROM pg_roles WHERE rolsuper"
"""
    assert mine.on_host("sh -s", stdin=scratch, within=300).split() == ["1", "postgres"]


@pytest.mark.slow
def test_a_restore_runs_no_function_of_the_applications_as_superuser(mine: Rig) -> None:
    as_application(mine, EVIL + CHECKED)
    for run in (mine.deploy(deploy="backup"), mine.deploy(deploy="restore", backup="latest")):
        assert run.code == 0, run.output
    assert mine.sql("SELECT count(*) FROM public.checked") == "1"
    assert mine.sql(SUPERUSERS) == "postgres"
    assert status() == (0, [])
    assert mine.deploy(deploy="restore", backup="drop_old").code == 0


def test_the_guard_of_the_superadmin_comes_back_in_the_command_that_drops_it(
    mine: Rig, api: httpx2.Client
) -> None:
    as_application(mine, "DROP TRIGGER zzzz_koprogo_deploy_superadmin ON users;")
    as_application(mine, "ALTER TABLE users DISABLE TRIGGER USER;")
    backend = next(name for name in mine.containers() if name.startswith("backend-"))
    mine.on_host(f"docker restart koprogo-{backend}-1 >/dev/null")
    mine.wait_until_healthy()
    login = {"email": "admin@koprogo.com", "password": "admin123"}
    assert api.post("/auth/login", json=login).status_code == 401
    assert status() == (0, [])
    # One that comes after it, by its name, has the last word: that is said.
    as_application(
        mine,
        EVIL_TRIGGER
        + """CREATE TRIGGER zzzzz BEFORE UPDATE ON users
  FOR EACH ROW EXECUTE FUNCTION public.evil_row();""",
    )
    code, problems = status()
    assert code == 1
    assert any("something comes after it" in told for told in problems)
    as_application(mine, "DROP TRIGGER zzzzz ON users;")
    assert status() == (0, [])
    mine.sql("DROP EVENT TRIGGER koprogo_deploy_guard")
    as_application(mine, "DROP TRIGGER zzzz_koprogo_deploy_superadmin ON users;")
    code, problems = status()
    assert code == 1
    assert any("guard of the superadmin's password is gone" in told for told in problems)
    assert mine.converge()
    assert status() == (0, [])


def test_a_setuid_program_of_an_image_is_not_root_on_the_host(rig: Rig) -> None:
    script = """
I=$(docker inspect -f '{{.Config.Image}}' koprogo-postgres-1)
docker run --name poc1 --user 0 --entrypoint sh "$I" -c \\
  'cp /usr/bin/id /usr/bin/poc-id; cp /usr/bin/cat /usr/bin/poc-cat; chmod 4755 /usr/bin/poc-*'
docker commit poc1 poc-suid >/dev/null
docker run -d --name poc2 --user 1000:1000 --cap-drop ALL \\
  --security-opt no-new-privileges:true --entrypoint sleep poc-suid 60 >/dev/null
python3 -I - <<'P'
import sys
sys.path.insert(0, "/opt/koprogo/data/lib")
from koprogo_deploy.data.host import inside, run
print(run(*inside("poc2", "poc-id")))
print(run(*inside("poc2", "poc-cat", "/proc/self/status")))
print("processes", run(*inside("poc2", "sh", "-c", "ls -d /proc/[0-9]* | wc -l")))
P
docker rm -f poc1 poc2 >/dev/null; docker rmi -f poc-suid >/dev/null
"""
    said = rig.on_host("sh -s", stdin=script)
    assert "uid=1000" in said
    assert "euid=0" not in said
    facts: dict[str, Any] = dict(
        line.split(":\t", 1) for line in said.splitlines() if ":\t" in line
    )
    assert facts["CapEff"] == facts["CapPrm"] == facts["CapBnd"] == "0" * 16
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
    assert int(said.split("processes ")[1]) < 10, "the container's processes, not the host's"


def test_while_a_drill_runs_nobody_reads_a_password_or_gets_a_token_that_counts(rig: Rig) -> None:
    # By another user of the host, all the while: command lines, and what the copy's own secrets
    # are; by the engine, what a container was given.
    watch = """
set -e
cat > /tmp/watch.sh <<'P'
while [ ! -e /tmp/watch.end ]; do
  for c in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < "$c" 2>/dev/null | grep -a PASSWORD=; done
  sleep 0.1
done
P
rm -f /tmp/watch.end
sudo -u nobody sh /tmp/watch.sh > /tmp/watch.found 2>/dev/null & watching=$!
/opt/koprogo/bin/koprogo-data backup --by test >/dev/null
systemctl start --no-block koprogo-drill.service
secret= inspected=
for _ in $(seq 600); do
  [ -n "$inspected" ] || inspected=$(docker inspect koprogo-scratch-1 2>/dev/null |
    grep -c POSTGRES_PASSWORD || :)
  [ -n "$secret" ] || secret=$(cat /opt/koprogo/data/scratch/backend/jwt_secret 2>/dev/null || :)
  case $(systemctl is-active koprogo-drill.service) in activating|active) ;; *) break ;; esac
  sleep 0.3
done
touch /tmp/watch.end; wait $watching || :
echo "drill $(systemctl show -P Result koprogo-drill.service)"
echo "inspected ${inspected:-none} found $(wc -l < /tmp/watch.found)"
[ -n "$secret" ] && echo "made"
cat /opt/koprogo/secrets/backend-*/jwt_secret | grep -qF "$secret" || echo "of its own"
ls -d /opt/koprogo/data/scratch 2>/dev/null || echo "thrown away"
rm -f /tmp/watch.*
"""
    said = rig.on_host("sh -s", stdin=watch, within=400).splitlines()
    assert said == [
        "drill success",
        "inspected 0 found 0",
        "made",
        "of its own",
        "thrown away",
    ]


def test_the_server_has_no_password_in_its_environment(rig: Rig) -> None:
    pid = rig.on_host("docker inspect -f '{{.State.Pid}}' koprogo-postgres-1").strip()
    environment = rig.on_host(f"tr '\\0' '\\n' < /proc/{pid}/environ")
    assert "PGDATA=" in environment, "it is the server's"
    assert "POSTGRES_PASSWORD=" not in environment

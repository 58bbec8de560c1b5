"""The whole road of a deploy. Run it from the project's root:

pyinfra inventories/production.py deploys/full.py
"""

from koprogo_deploy.operations.backup import schedule_stage
from koprogo_deploy.operations.cutover import cutover_stage
from koprogo_deploy.operations.engine import engine_stage
from koprogo_deploy.operations.host import host_stage
from koprogo_deploy.operations.migrate import migrate_stage, postgres_stage
from koprogo_deploy.operations.preflight import preflight
from koprogo_deploy.operations.record import record_stage
from koprogo_deploy.operations.rehearse import rehearse_stage
from koprogo_deploy.operations.release import release_stage
from koprogo_deploy.operations.seed import seed_stage
from koprogo_deploy.operations.settle import settle_stage
from koprogo_deploy.operations.trial import trial_stage
from koprogo_deploy.operations.verify import verify_stage

preflight()  # settings, secrets, budget and host are acceptable; nothing is touched
host_stage()  # packages, swap, sysctl, time, journal, updates, accounts, SSH
engine_stage()  # Docker Engine and Compose of the distribution, daemon.json
release_stage()  # secrets, and one directory with every rendered file; images by digest
postgres_stage()  # Postgres runs, with the application's role and database
rehearse_stage()  # pending migrations: on a copy of the data first; then a dump of it
migrate_stage()  # the new backend beside the old one, unrouted until healthy; schema verified
trial_stage()  # it answers as it should, and what serves does so on the new schema
cutover_stage()  # Traefik, frontend, the switch; the old colours stay warm
seed_stage()  # the realistic data, where the environment asks for it
verify_stage()  # smoke tests from outside and on the host; if they fail, what was serves again
settle_stage()  # `current` moves; the old colours and the oldest releases go
schedule_stage()  # backups and restore drills, made by the host itself
record_stage()  # a run that changed something gets its line in the journal

"""An empty VPS from a backup: the whole road of a deploy, with the data in it. Run it as

pyinfra inventories/production.py deploys/recover.py --data backup=latest
"""

from koprogo_deploy.operations.backup import repository_stage, schedule_stage
from koprogo_deploy.operations.cutover import cutover_stage
from koprogo_deploy.operations.engine import engine_stage
from koprogo_deploy.operations.host import host_stage
from koprogo_deploy.operations.migrate import migrate_stage, postgres_stage
from koprogo_deploy.operations.preflight import preflight
from koprogo_deploy.operations.record import record_stage
from koprogo_deploy.operations.release import release_stage
from koprogo_deploy.operations.restore import empty_stage, restore_stage
from koprogo_deploy.operations.settle import settle_stage
from koprogo_deploy.operations.verify import verify_stage

preflight()
empty_stage()  # somebody's data is not for recover.py
host_stage()
engine_stage()
release_stage()
postgres_stage()
migrate_stage()
cutover_stage()
settle_stage()  # a release serves and counts: the backup has something to fit
repository_stage()
restore_stage()
verify_stage()
schedule_stage()  # the data is there: from here on it is backed up, and not the empty stack
record_stage()

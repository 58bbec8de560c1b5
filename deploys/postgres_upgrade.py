"""A major version of Postgres up, the data with it. Run it from the project's root:

pyinfra inventories/production.py deploys/postgres_upgrade.py
pyinfra inventories/production.py deploys/postgres_upgrade.py --data upgrade=back
pyinfra inventories/production.py deploys/postgres_upgrade.py --data upgrade=drop_old

First write the new postgres_image and postgres_major into group data. The old cluster stays until
drop_old. Going back to it is refused where something was written since, with the count;
--data upgrade=back_anyway goes back nevertheless.
"""

from koprogo_deploy import cut
from koprogo_deploy.operations.host import host_stage
from koprogo_deploy.operations.preflight import preflight
from koprogo_deploy.operations.record import record_stage
from koprogo_deploy.operations.settle import settle_stage
from koprogo_deploy.operations.upgrade import (
    choose_stage,
    drops,
    postgres_release_stage,
    upgrade_stage,
)

preflight(cut.UPGRADE)
choose_stage()  # up, back, or the end of what an earlier run began; nothing is touched if refused
host_stage()  # koprogo-data, which does the work
postgres_release_stage()  # differs in Postgres alone; its image is pulled
upgrade_stage()  # rehearsed on a copy, changed over under the page, verified; the old one stays
if not drops():
    settle_stage()  # the release with the other Postgres counts
record_stage()

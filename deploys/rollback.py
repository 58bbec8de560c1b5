"""Back to a kept release, by the road of a deploy. Run it from the project's root:

pyinfra inventories/production.py deploys/rollback.py
pyinfra inventories/production.py deploys/rollback.py --data release=ID --data reason="…"

Where a migration stands between it refuses, says what its dump would lose, and what does it:
--data restore_dump=true
"""

from koprogo_deploy import cut
from koprogo_deploy.operations.cutover import cutover_stage
from koprogo_deploy.operations.migrate import migrate_stage, postgres_stage
from koprogo_deploy.operations.preflight import preflight
from koprogo_deploy.operations.record import record_stage
from koprogo_deploy.operations.rehearse import rehearse_stage
from koprogo_deploy.operations.return_data import open_stage, pass_stage, return_stage
from koprogo_deploy.operations.rollback import rollback_stage
from koprogo_deploy.operations.settle import settle_stage
from koprogo_deploy.operations.trial import trial_stage
from koprogo_deploy.operations.verify import verify_stage

preflight(cut.RETURN)
rollback_stage()  # the one that served before, or the named one; refused where it cannot run
postgres_stage()
return_stage()  # with restore_dump: the data of before the migration, under the maintenance page
rehearse_stage()  # it may know migrations that the database lacks
migrate_stage()  # its backend comes up unrouted
trial_stage()  # and answers as it should
cutover_stage()  # the switch; the release that is left is marked, so that nothing brings it back
pass_stage()  # with restore_dump: this machine, by the page
verify_stage()  # by the settings of that release; if it fails, what was serves again
open_stage()  # with restore_dump: the page goes; from here on nothing is put back
settle_stage()
record_stage()

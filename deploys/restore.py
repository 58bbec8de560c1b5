"""A backup in place of what is live. Run it from the project's root:

koprogo backups production
pyinfra inventories/production.py deploys/restore.py --data backup=ID --data reason="…"
pyinfra inventories/production.py deploys/restore.py --data backup=before     # take it back
pyinfra inventories/production.py deploys/restore.py --data backup=koprogo_before_…  # earlier
pyinfra inventories/production.py deploys/restore.py --data backup=drop_old   # let them go
"""

from koprogo_deploy import cut
from koprogo_deploy.operations.backup import schedule_stage
from koprogo_deploy.operations.preflight import preflight
from koprogo_deploy.operations.record import record_stage
from koprogo_deploy.operations.restore import restore_stage
from koprogo_deploy.operations.verify import verify_stage

preflight(cut.RESTORE)
schedule_stage()  # what opens the repository
restore_stage()  # beside what is live, compared, then swapped by rename
verify_stage()
record_stage()

"""A backup now: database, uploads and manifest, in the repository and read back."""

from koprogo_deploy.operations.backup import backup_stage, schedule_stage
from koprogo_deploy.operations.preflight import preflight

preflight(verifies=False)
schedule_stage()  # what opens the repository, and the timers
backup_stage()  # it writes its own line in the journal

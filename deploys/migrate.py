"""The migrate stage alone: a pushed release's backend comes up unrouted, and migrates.

As in full.py: what is pending is rehearsed on a copy first, and the database dumped.
"""

from koprogo_deploy.operations.migrate import migrate_stage, postgres_stage
from koprogo_deploy.operations.preflight import preflight
from koprogo_deploy.operations.record import record_stage
from koprogo_deploy.operations.rehearse import rehearse_stage
from koprogo_deploy.operations.trial import trial_stage

preflight()
postgres_stage()
rehearse_stage()
migrate_stage()
trial_stage()
record_stage()

"""The cut-over stage alone: requests go to the release that was pushed and migrated."""

from koprogo_deploy.operations.cutover import cutover_stage
from koprogo_deploy.operations.preflight import preflight
from koprogo_deploy.operations.record import record_stage
from koprogo_deploy.operations.trial import trial_stage

preflight()
trial_stage()
cutover_stage()
record_stage()

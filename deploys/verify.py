"""The verify stage alone: the smoke tests."""

from koprogo_deploy.operations.preflight import preflight
from koprogo_deploy.operations.record import record_stage
from koprogo_deploy.operations.verify import verify_stage

preflight()
verify_stage()
record_stage()

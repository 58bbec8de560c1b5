"""The migrate stage alone: the pushed backend comes up unrouted, its schema is verified."""

from koprogo_deploy.operations.migrate import migrate_stage
from koprogo_deploy.operations.preflight import preflight
from koprogo_deploy.operations.record import record_stage

preflight()
migrate_stage()
record_stage()

"""The migrate stage alone: the pushed backend comes up unrouted, its schema is verified."""

from koprogo_deploy.operations.migrate import migrate_stage
from koprogo_deploy.operations.preflight import preflight

preflight()
migrate_stage()

"""The engine stage alone: Docker Engine and Compose."""

from koprogo_deploy.operations.engine import engine_stage
from koprogo_deploy.operations.preflight import preflight
from koprogo_deploy.operations.record import record_stage

preflight()
engine_stage()
record_stage()

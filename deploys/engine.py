"""The engine stage alone: Docker Engine and Compose."""

from koprogo_deploy.operations.engine import engine_stage
from koprogo_deploy.operations.preflight import preflight

preflight()
engine_stage()

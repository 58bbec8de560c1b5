"""The seed stage alone: the realistic data, where the environment asks for it."""

from koprogo_deploy.operations.preflight import preflight
from koprogo_deploy.operations.record import record_stage
from koprogo_deploy.operations.seed import seed_stage

preflight()
seed_stage()
record_stage()

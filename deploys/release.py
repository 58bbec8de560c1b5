"""The release stage alone: secrets, files and images on the host; nothing runs differently."""

from koprogo_deploy.operations.planning import plan_stage
from koprogo_deploy.operations.preflight import preflight
from koprogo_deploy.operations.record import record_stage
from koprogo_deploy.operations.release import release_stage

preflight()
plan_stage()
release_stage()
record_stage()

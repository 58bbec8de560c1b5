"""The release stage alone: secrets, files and images on the host; nothing runs differently."""

from koprogo_deploy.operations.preflight import preflight
from koprogo_deploy.operations.record import record_stage
from koprogo_deploy.operations.release import release_stage

preflight()
release_stage()
record_stage()

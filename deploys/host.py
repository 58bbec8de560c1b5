"""The host stage alone: packages, sysctl, accounts, SSH."""

from koprogo_deploy.operations.host import host_stage
from koprogo_deploy.operations.preflight import preflight
from koprogo_deploy.operations.record import record_stage

preflight()
host_stage()
record_stage()

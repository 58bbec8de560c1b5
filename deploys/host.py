"""The host stage alone: packages, sysctl, accounts, SSH."""

from koprogo_deploy.operations.host import host_stage
from koprogo_deploy.operations.preflight import preflight

preflight()
host_stage()

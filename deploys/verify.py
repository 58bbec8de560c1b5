"""The verify stage alone: the smoke tests."""

from koprogo_deploy.operations.verify import verify_stage
from koprogo_deploy.operations.preflight import preflight

preflight()
verify_stage()

"""The settle stage alone: a release that was switched to counts; what served before it goes."""

from koprogo_deploy.operations.preflight import preflight
from koprogo_deploy.operations.record import record_stage
from koprogo_deploy.operations.settle import settle_stage

preflight()
settle_stage()
record_stage()

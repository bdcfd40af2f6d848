"""For authors of pipelines and connectors: conformance suites, and a project in memory whose faults are scripted."""

from lsbatch.testing.connector_rules import check_connector
from lsbatch.testing.memory import Fault, MemoryMedia, MemoryProject
from lsbatch.testing.pipeline_rules import check_pipeline

__all__ = ["Fault", "MemoryMedia", "MemoryProject", "check_connector", "check_pipeline"]

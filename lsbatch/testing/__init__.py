"""For authors of pipelines and connectors: conformance suites, and a project in memory whose faults are scripted."""

from lsbatch.testing.connector_rules import check_connector
from lsbatch.testing.memory import Fault, MemoryProject
from lsbatch.testing.memory_media import MemoryMedia
from lsbatch.testing.pipeline_rules import check_pipeline
from lsbatch.testing.store_rules import check_store

__all__ = ["Fault", "MemoryMedia", "MemoryProject", "check_connector", "check_pipeline", "check_store"]

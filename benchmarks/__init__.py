"""Benchmarks of the ``lsbatch`` command against the raw requests and against what people use today."""

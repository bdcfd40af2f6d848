"""Pipelines: what turns tasks into predictions, and learns from annotations."""

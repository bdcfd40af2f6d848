"""Measurements side by side in one run; ratios, since seconds depend on the machine."""

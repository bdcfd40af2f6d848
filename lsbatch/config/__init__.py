"""The configuration: flag > environment > file > default, every mistake at once.

``schema`` says what can be set and ``described`` lists it, ``sources`` reads what is given, ``load`` checks it,
``example`` explains it.
"""

from lsbatch.config.described import settings
from lsbatch.config.example import render_example
from lsbatch.config.load import Loaded, load
from lsbatch.config.schema import Config

__all__ = ["Config", "Loaded", "load", "render_example", "settings"]

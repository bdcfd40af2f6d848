"""``python -m lsbatch``."""

from lsbatch.cli import main

if __name__ == "__main__":
    main()

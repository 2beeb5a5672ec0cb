"""`python -m aitrain`."""

import sys

from aitrain.cli import main

if __name__ == "__main__":
    sys.exit(main())

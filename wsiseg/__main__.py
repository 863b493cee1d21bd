"""`python -m wsiseg` is the `wsiseg` command."""

import sys

from wsiseg.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

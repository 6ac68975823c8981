"""`python -m archive` is the `archive` command."""

import sys

from archive.cli import main

sys.exit(main())

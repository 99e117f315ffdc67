"""`python -m postbud` is the `postbud` command."""

import sys

from postbud.app.cli import main

sys.exit(main())

"""`python -m chunkprefill_grading`."""

import sys

from chunkprefill_grading.cli import main

sys.exit(main())

"""`python -m chunkprefill.grading`."""

import sys

from chunkprefill.grading.cli import main

sys.exit(main())

"""The tools are scripts beside each other, not a package: make them importable as they see each other."""

import sys

from tests.needs import ROOT

sys.path.insert(0, str(ROOT / "tools"))

"""What the benches' tests share."""

from tests.grading.conftest import *  # noqa: F403

"""`python -m reportgen.review STEP`: one step of the action."""

import sys

from reportgen.review.steps import run_step

sys.exit(run_step(sys.argv[1:]))

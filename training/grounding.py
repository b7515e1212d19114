"""``python -m training.grounding``; see training/evaluation/grounding.py."""

import sys

from training.evaluation.grounding import main

if __name__ == "__main__":
    sys.exit(main())

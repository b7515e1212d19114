"""``python -m training.evaluate``; see training/evaluation/evaluator.py."""

import sys

from training.evaluation.evaluator import main

if __name__ == "__main__":
    sys.exit(main())

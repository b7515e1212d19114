"""``python -m training.compare``; see training/comparison/experiment.py."""

import sys

from training.comparison.experiment import main

if __name__ == "__main__":
    sys.exit(main())

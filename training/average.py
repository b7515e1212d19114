"""``python -m training.average``; see training/runs/averaging.py."""

import sys

from training.runs.averaging import main

if __name__ == "__main__":
    sys.exit(main())

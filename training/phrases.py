"""``python -m training.phrases``; see training/runs/phrase_training.py."""

import sys

from training.runs.phrase_training import main

if __name__ == "__main__":
    sys.exit(main())

"""``python -m training.check``; see training/data/validation.py."""

import sys

from training.data.validation import main

if __name__ == "__main__":
    sys.exit(main())

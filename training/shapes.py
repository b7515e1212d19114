"""``python -m training.shapes``; see training/data/shapes.py."""

import sys

from training.data.shapes import main

if __name__ == "__main__":
    sys.exit(main())

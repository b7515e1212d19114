"""The service with a captioner that needs no weights, for gunicorn and nginx.

    PYTHONPATH=tests gunicorn -c service/gunicorn_config.py support.fake_service:app

``FAKE_CAPTION_SECONDS`` is the duration of every inference, which blocks while there is a file
``FAKE_CAPTION_HOLD``.
"""

import os
import time
from pathlib import Path
from typing import Any

from support.fake_captioner import FakeCaptioner

from model import Caption
from service.app import create_app


class SlowCaptioner(FakeCaptioner):
    """Takes as long as the environment says."""

    seconds = float(os.environ.get("FAKE_CAPTION_SECONDS", "0"))

    hold = Path(os.environ.get("FAKE_CAPTION_HOLD", "/nowhere"))

    def caption(self, *args: Any, **kwargs: Any) -> list[list[Caption]]:
        while self.hold.exists():
            time.sleep(0.01)
        time.sleep(self.seconds)
        return super().caption(*args, **kwargs)


app = create_app(captioner=SlowCaptioner())

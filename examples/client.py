"""Caption a photo over HTTP: python examples/client.py photo.jpg. Needs `pip install requests`."""

import sys
import time
from pathlib import Path

import requests

SERVICE = "http://127.0.0.1:8000"
MAX_ATTEMPTS = 10


def caption(photo: Path, service: str = SERVICE) -> dict:
    """Return the record of a photo. While the service is busy, retry after the time it asks for."""
    for _ in range(MAX_ATTEMPTS):
        with photo.open("rb") as file:
            response = requests.post(
                f"{service}/v1/captions", files={"image": file}, data={"overlays": "none"}, timeout=60
            )
        if "Retry-After" not in response.headers:
            break
        time.sleep(int(response.headers["Retry-After"]))
    if not response.ok:
        raise SystemExit(response.json()["detail"])
    return response.json()


if __name__ == "__main__":
    best = caption(Path(sys.argv[1]), *sys.argv[2:])["captions"][0]
    print(best["caption"])
    for word in best["words"]:
        weights = word["attention"]  # rows x columns, sums to 1
        row = max(range(len(weights)), key=lambda r: max(weights[r]))
        column = weights[row].index(max(weights[row]))
        print(f"  {word['word']:12} attention peaks at row {row}, column {column}")

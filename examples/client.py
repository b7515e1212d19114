"""Captions a photo over HTTP: python examples/client.py photo.jpg. It needs `pip install requests`."""

import sys
import time
from pathlib import Path

import requests

SERVICE = "http://127.0.0.1:8000"


def caption(photo: Path, service: str = SERVICE) -> dict:
    """The record of a photo; a service that is busy is asked again when it says, ten times at most."""
    for _ in range(10):
        with photo.open("rb") as file:
            answer = requests.post(
                f"{service}/v1/captions", files={"image": file}, data={"overlays": "none"}, timeout=60
            )
        if "Retry-After" not in answer.headers:
            break
        time.sleep(int(answer.headers["Retry-After"]))
    if not answer.ok:
        raise SystemExit(answer.json()["detail"])  # what is wrong, in a sentence
    return answer.json()


if __name__ == "__main__":
    best = caption(Path(sys.argv[1]), *sys.argv[2:])["captions"][0]
    print(best["caption"])
    for word in best["words"]:
        weights = word["attention"]  # rows x columns, sums to 1
        row = max(range(len(weights)), key=lambda r: max(weights[r]))
        column = weights[row].index(max(weights[row]))
        print(f"  {word['word']:12} looked most at row {row}, column {column}")

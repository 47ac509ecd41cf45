"""The urgent job of the demo: score a baseline on the digits that production needs now. Takes seconds, wants both GPUs.

Run as a plain command on its lease: it sees only the devices that it holds.
"""

from __future__ import annotations

import argparse
import sys
import time

from heliostat.settings import environment


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Fit a linear baseline on the digits, again and again, for some seconds."
    )
    parser.add_argument("--seconds", type=float, default=5.0)
    seconds = parser.parse_args().seconds
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split

    devices = environment().get("CUDA_VISIBLE_DEVICES", "none")
    sys.stdout.write(f"urgent: on devices {devices}\n")
    images, labels = load_digits(return_X_y=True)
    deadline, rounds, accuracy = time.monotonic() + seconds, 0, 0.0
    while rounds == 0 or time.monotonic() < deadline:
        train_x, test_x, train_y, test_y = train_test_split(images / 16.0, labels, test_size=0.2, random_state=rounds)
        accuracy = float(LogisticRegression(max_iter=200).fit(train_x, train_y).score(test_x, test_y))
        rounds += 1
    sys.stdout.write(f"urgent: {rounds} fits, accuracy of the last {accuracy:.3f}\n")


if __name__ == "__main__":
    main()

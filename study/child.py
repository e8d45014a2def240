"""train.py as a child of a study, which ends when the study does, however that ended.

    python study/child.py --config options.toml         what `Runner.train` starts; the words are those of train.py

The study holds the other end of this process' standard input, and writes nothing into it. When the study is gone, for
whatever reason and on whatever system, that end is closed, and reading tells.
"""

import os
import runpy
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def watch() -> None:
    """Wait until nobody holds the other end of standard input, then end this process as a kill would."""
    while os.read(0, 1024):
        pass
    os.write(2, b"stopped: the study that began this training has ended\n")
    os._exit(1)


def main(words: list[str]) -> None:
    """Run train.py with its words."""
    threading.Thread(target=watch, daemon=True).start()
    sys.path[0] = str(ROOT)  # it was this file's folder
    sys.argv = [str(ROOT / "train.py"), *words]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])

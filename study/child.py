"""train.py as a child of a study, which ends when the study does, however that ended.

    python study/child.py --config options.toml         what `Runner.train` starts; the words are those of train.py

The study holds the other end of this process' standard input, and writes nothing into it. When the study is gone, for
whatever reason and on whatever system, that end is closed, and reading tells. On Windows nothing is read: while a
thread waits in such a read there, a library that looks at standard input as it is loaded, as numpy's does, waits with
it for ever (numpy's issue 24290). There the pipe is asked every second whether it is still one.
"""

import ctypes
import os
import runpy
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def watch() -> None:
    """Wait until nobody holds the other end of standard input, then end this process as a kill would."""
    if sys.platform == "win32":
        import msvcrt

        pipe = ctypes.c_void_p(msvcrt.get_osfhandle(0))
        while ctypes.windll.kernel32.PeekNamedPipe(pipe, None, 0, None, None, None):
            time.sleep(1)
    else:
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

"""The child of ``fuzz_reader.py``: atheris feeds the reader until time is up or a decoder ends this process.

    reader_target.py NOTEBOOK CORPUS [options of libFuzzer]

What it is working on stands in the notebook (``fuzz_notebook``), so that the parent knows it when this process is gone.
"""

import io
import logging
import sys
import traceback
from pathlib import Path

import atheris
from fuzz_notebook import Notebook

with atheris.instrument_imports(include=["pydicom", "mammofed_shared.dicom"]):
    from mammofed_shared.dicom.header import read_header
    from mammofed_shared.dicom.read import decode
    from mammofed_shared.dicom.window import show
from mammofed_shared.errors import UnreadableImage


def read(data: bytes) -> None:
    """What intake does with a file up to its grey values; every other error than ``UnreadableImage`` is ours."""
    header, file = read_header(io.BytesIO(data))
    codes, shape = decode(header, file)
    for preset in ("paper", "voi", "percentile"):
        show(codes, shape, header, preset)[:, :]


def main() -> None:
    """Run until libFuzzer ends this process."""
    logging.disable()  # as in a worker of the pool
    notebook = Notebook(Path(sys.argv.pop(1)))

    def one(data: bytes) -> None:
        notebook.begin(data)
        try:
            read(data)
        except UnreadableImage:
            pass
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            notebook.broken(f"{type(error).__name__} in {Path(frame.filename).name}, line {frame.lineno}", data)
        notebook.end()

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

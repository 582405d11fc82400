"""Fuzz the reader: header, checks, decoders and windows, fed by atheris for some minutes.

    .venv/bin/pip install -e '.[fuzz]' -c constraints.txt
    .venv/bin/python tests/fuzz/fuzz_reader.py [--seconds 300] [--output fuzz-output]

atheris works in a child. A decoder that ends it is an answered file in production: here too the child is started again,
the input is kept under ``OUTPUT/deaths``, and ``prepare_file`` must answer it in the pool of the intake. Corpus and
findings stay in OUTPUT; a second run goes on from there. The exit code is 1 where the contract with the intake is
broken: our code raised something else than ``UnreadableImage`` (``OUTPUT/broken``), or the pool did not answer a deadly
input.
"""

import argparse
import functools
import hashlib
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from fuzz_notebook import LARGEST, Notebook

from dicom_encodings import JPEG_BASELINE, JPEG_EXTENDED, LOSSLESS, dicom_file, stored_ramp
from mammofed_shared.config.import_profile import ImportProfile
from mammofed_shared.config.preprocessing import PreprocessingSettings
from mammofed_shared.dicom.pool import Loss, Lost, map_isolated
from mammofed_shared.dicom.preprocess import Recipe, prepare_file

HERE = Path(__file__).parent
CASES = HERE.parent / "shared" / "dicom" / "cases"
HANG_S = 20
"""An input that takes longer ends the child."""
MEMORY_MB = 4096


def write_seeds(corpus: Path) -> int:
    """Fill the corpus with the project's cases, and with the smallest image of each syntax; how many there are."""
    corpus.mkdir(parents=True, exist_ok=True)
    seeds = [path.read_bytes() for path in CASES.glob("*.dcm")]
    for syntax in (*LOSSLESS, JPEG_BASELINE, JPEG_EXTENDED):
        bits = 8 if syntax == JPEG_BASELINE else 12
        seeds.append(
            dicom_file(stored_ramp(bits, rows=12, columns=10), syntax, bits, WindowCenter=2000, WindowWidth=3000)
        )
    for seed in seeds:
        (corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)  # as libFuzzer names its own
    return len(seeds)


def run_child(output: Path, seconds: int, runs: int) -> tuple[int, str]:
    """Let atheris work for so many seconds; the exit code of its process and the last lines of its log."""
    options = [f"-max_total_time={seconds}", f"-timeout={HANG_S}", f"-rss_limit_mb={MEMORY_MB}", f"-max_len={LARGEST}"]
    options += [f"-artifact_prefix={output}/artifact-", "-print_final_stats=1", f"-seed={runs}"]
    command = [
        sys.executable,
        str(HERE / "reader_target.py"),
        str(output / "notebook"),
        str(output / "corpus"),
        *options,
    ]
    log = output / "child.log"
    with log.open("wb") as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    return code, "\n".join(log.read_text(errors="replace").splitlines()[-3:])


def kept(output: Path, data: bytes) -> Path:
    """The file under ``deaths`` that holds a deadly input."""
    path = output / "deaths" / hashlib.sha256(data).hexdigest()[:16]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def answers(paths: list[Path], output: Path) -> Counter[str]:
    """How the intake answers files, in the pool that it uses; an error of ours counts as ``no answer``."""
    recipe = Recipe(PreprocessingSettings(), ImportProfile(), b"k" * 32, output / "prepared")
    found: Counter[str] = Counter()
    results = map_isolated(functools.partial(prepare_file, recipe), paths, workers=1, timeout_s=HANG_S)
    for _, result in results:
        if isinstance(result, Lost):
            found["no answer" if result.loss is Loss.RAISED else f"decoder {result.loss.value}"] += 1
        else:
            found[str(getattr(result, "reason", "accepted"))] += 1
    return found + Counter({"no answer": len(paths) - found.total()})


def fuzz(output: Path, seconds: int) -> tuple[int, list[Path]]:
    """Feed the reader for so many seconds; inputs read, and those that ended the child."""
    notebook, until, deaths = Notebook(output / "notebook"), time.monotonic() + seconds, []
    already, runs = notebook.count, 0
    while (left := round(until - time.monotonic())) > 0:
        runs += 1
        code, log = run_child(output, left, runs)
        deadly = notebook.current
        if deadly is not None:
            deaths.append(kept(output, deadly))
            notebook.end()
            print(
                f"{notebook.count - already:9,} inputs: the child ended with code {code}, its input is kept", flush=True
            )
        elif code:
            sys.exit(f"the child did not start, or ended outside an input, with code {code}:\n{log}")
    return notebook.count - already, deaths


def main() -> None:
    """Fuzz, and judge what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--output", type=Path, default=Path("fuzz-output"))
    arguments = parser.parse_args()
    output = arguments.output.resolve()
    print(f"{write_seeds(output / 'corpus')} seeds", flush=True)
    num_inputs, deaths = fuzz(output, arguments.seconds)
    broken = sorted(path.read_text() for path in (output / "broken").glob("*/what"))
    answered = answers(deaths, output) if deaths else Counter()
    print(f"{num_inputs:,} inputs, {len(list((output / 'corpus').iterdir())):,} of them kept as corpus")
    print(f"{len(deaths)} ended the child; the intake's pool answers them: {dict(answered) or 'none'}")
    print(f"{len(broken)} places raised what is no refusal: {'; '.join(broken) or 'none'}")
    sys.exit(1 if broken or answered["no answer"] else 0)


if __name__ == "__main__":
    main()

"""Runs the fuzz targets: every `fuzz/fuzz_*.py`, each for so many seconds, so many at a time.

A target is a script that ends in `atheris.Setup(sys.argv, test_one_input); atheris.Fuzz()`. Its seeds are the files of
`fuzz/corpus/<name>/`, if any. What it finds is left in `build/fuzz/<name>/`, and the run fails.
"""

import argparse
import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
FINDINGS = HERE.parent / "build" / "fuzz"


def run_target(target: Path, seconds: int) -> tuple[str, int, str]:
    """Fuzz one target; give its name, exit code and what it said."""
    name = target.stem.removeprefix("fuzz_")
    grown = FINDINGS / name / "corpus"
    grown.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        str(target),
        f"-max_total_time={seconds}",
        f"-artifact_prefix={FINDINGS / name}/",
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
        str(grown),
    ]
    seeds = HERE / "corpus" / name
    if seeds.is_dir():
        command.append(str(seeds))
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds + 300, check=False)
    return name, done.returncode, done.stdout + done.stderr


def main() -> int:
    """Run them and print one line a target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("names", nargs="*", help="only these targets")
    arguments = parser.parse_args()
    targets = [
        target
        for target in sorted(HERE.glob("fuzz_*.py"))
        if not arguments.names or target.stem.removeprefix("fuzz_") in arguments.names
    ]
    if importlib.util.find_spec("atheris") is None:
        print(f"fuzzing skipped: atheris has no wheel for this Python or machine ({len(targets)} targets)")
        return 0
    failed = 0
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for name, code, said in pool.map(lambda target: run_target(target, arguments.seconds), targets):
            counted = (line.rpartition(":")[2].strip() for line in said.splitlines() if "number_of_executed_units" in line)
            runs = next(counted, "?")
            print(
                f"fuzz {name}: {'ok' if code == 0 else 'FOUND SOMETHING'}, {runs} inputs in {arguments.seconds} s", flush=True
            )
            if code:
                failed += 1
                print("\n".join(said.splitlines()[-60:]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

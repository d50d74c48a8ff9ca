#!/usr/bin/env python3
"""Checks the layering rules that a linker sees late or never; docs/dependencies.md and CONTRIBUTING.md state them.

  * no file includes from a layer below its own in the list of cmake/layers.cmake;
  * the portable core (base to dialect, without the POSIX files of io/) includes no POSIX, thread, file system or stream header;
  * a third-party header is included only where it is at home;
  * public headers (include/quantbridge/) include public headers and the C++ standard library alone.

Exit 1 and one line for each violation.
"""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = (ROOT / "cmake/layers.cmake").read_text()
LAYERS = re.search(r"^set\(QB_LAYERS ([a-z ]+)\)", BUILD, re.M)[1].split()
CORE_LAST = "dialect"
POSIX_FILE = re.compile(re.search(r'^set\(QB_POSIX_FILES "(.+)"\)', BUILD, re.M)[1])
# Third-party headers by prefix: the files of src/ that may include them.
AT_HOME = {"nlohmann/": r"base/json\w*\.h", "CLI/": r"cli/.*", "pcre2": r"host/.*", "utf8proc": r"text/.*", "xxhash": r"(exec|bridge)/.*", "Eigen/": r"calib/.*\.cc", "mpi.h": r"host/mpi\.cc", "gtest/": r".*(_test\.cc|/test_\w+\.(h|cc))",
           "gmock/": r".*_test\.cc", "rapidcheck": r".*_test\.cc", "benchmark/": r"(?!)", "fmt/": r".*"}
NOT_IN_CORE = re.compile(r"(unistd|fcntl|dirent|poll|pthread|sched|dlfcn|signal|semaphore|netdb|termios|spawn|glob|ftw)\.h|(sys|netinet|arpa|linux)/.*|"
                         r"thread|mutex|shared_mutex|condition_variable|future|semaphore|barrier|latch|stop_token|csignal|filesystem|regex|"
                         r"iostream|istream|ostream|fstream|sstream|iomanip|syncstream|streambuf|ios|fmt/(os|ostream)\.h")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)


def is_test(path):
    return path.endswith("_test.cc") or re.search(r"/test_\w+\.(h|cc)$", path) is not None


def check_source(name, text, problems):
    """`name` is relative to src/."""
    layer = name.split("/")[0]
    rank = LAYERS.index(layer)
    core = rank <= LAYERS.index(CORE_LAST) and not POSIX_FILE.fullmatch(name) and not is_test(name)
    for _, header in INCLUDE.findall(text):
        target = header.split("/")[0]
        if "/" in header and target in LAYERS and LAYERS.index(target) > rank:
            problems.append(f"src/{name}: includes {header}, but {target} lies below {layer}")
        if core and (NOT_IN_CORE.fullmatch(header) or POSIX_FILE.fullmatch(header)):
            problems.append(f"src/{name}: includes {header}, which the portable core does without")
        for prefix, home in AT_HOME.items():
            if header.startswith(prefix) and not re.fullmatch(home, name):
                problems.append(f"src/{name}: includes {header}, which belongs in {home}")


def main():
    problems, files = [], 0
    for path in sorted((ROOT / "src").rglob("*")):
        if path.suffix not in (".cc", ".h"):
            continue
        name = path.relative_to(ROOT / "src").as_posix()
        if name.split("/")[0] not in LAYERS:
            problems.append(f"src/{name}: its folder is no layer of cmake/layers.cmake")
            continue
        files += 1
        check_source(name, path.read_text(encoding="utf-8"), problems)
    for path in sorted((ROOT / "include/quantbridge").glob("*.h")):
        files += 1
        for kind, header in INCLUDE.findall(path.read_text(encoding="utf-8")):
            if kind == '"' and not header.startswith("quantbridge/") or kind == "<" and ("/" in header or header.endswith(".h")):
                problems.append(f"include/quantbridge/{path.name}: includes {header}; public headers stand on the standard library alone")
    for line in problems:
        print(line)
    print(f"includes of {files} files: {'ok' if not problems else f'{len(problems)} violations'}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env bash
# A disk that fills up: exit code 3, a message that says so, and nothing left that looks whole. Needs the right to mount a tmpfs (root, or user namespaces); skips without.
#   tools/stress/disk_full.sh QUANTBRIDGE
# Three ways to run out: too small from the start (said before anything is written), a quota of file size (ulimit -f), and another process that takes the space while we write.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binary=$(command -v "${1:?usage: disk_full.sh QUANTBRIDGE}") || { echo "no program $1" >&2; exit 2; }

if [ "${QB_INSIDE:-}" != 1 ]; then
  if [ "$(id -u)" = 0 ] && unshare --mount true 2> /dev/null; then
    QB_INSIDE=1 exec unshare --mount "$here/$(basename "$0")" "$binary"
  elif unshare --user --map-root-user --mount true 2> /dev/null; then
    QB_INSIDE=1 exec unshare --user --map-root-user --mount "$here/$(basename "$0")" "$binary"
  fi
  echo "SKIP  disk_full: no right to make a mount namespace"
  exit 0
fi

work=$(mktemp -d)
trap 'umount "$work/small" 2> /dev/null; rm -rf "$work"' EXIT
mkdir "$work/small"
if ! mount -t tmpfs -o size=24m tmpfs "$work/small" 2> /dev/null; then
  echo "SKIP  disk_full: no right to mount a tmpfs"
  exit 0
fi
python3 "$here/../make_synthetic.py" "$work/dense" --size 60MB --shard-size 8MB > /dev/null
python3 "$here/../make_synthetic.py" "$work/nvfp4" --size 60MB --dialect modelopt-nvfp4 --shard-size 8MB > /dev/null
python3 "$here/../make_synthetic.py" "$work/tight" --size 20MB --dialect modelopt-nvfp4 --shard-size 4MB > /dev/null

failures=0
# expect NAME PATTERN COMMAND...: exit code 3, a message that matches, neither OUT nor what looks like it.
expect() {
  local name=$1 pattern=$2 code message left
  shift 2
  message=$("$@" 2>&1 > /dev/null)
  code=$?
  left=$(ls -A "$work/small" | grep -v '^ballast$' | tr '\n' ' ')
  if [ $code = 3 ] && grep -Eqi "$pattern" <<< "$message" && [ -z "$left" ]; then
    echo "PASS  $name: exit 3: $message"
  else
    failures=$((failures + 1))
    echo "FAIL  $name: exit $code, left '$left': $message"
  fi
  rm -rf "$work/small/"*
}

expect "convert, too small from the start" "space" "$binary" convert "$work/nvfp4" "$work/small/out" --to compressed_tensors --quiet
expect "quantize, too small from the start" "space" "$binary" quantize "$work/dense" "$work/small/out" --scheme fp8_channel:fp8_token --quiet
code=0
json=$("$binary" convert "$work/nvfp4" "$work/small/out" --to compressed_tensors --json 2> /dev/null) || code=$?
if [ $code = 3 ] && python3 -c 'import json, sys; j = json.loads(sys.argv[1]); sys.exit(not (not j["ok"] and j["problems"] and j["problems"][0]["class"] == "environment"))' "$json"; then
  echo "PASS  convert --json, too small: one object with an environment problem"
else
  failures=$((failures + 1))
  echo "FAIL  convert --json, too small: exit $code: $json"
fi
rm -rf "$work/small/"*

# The kernel sends SIGXFSZ at a file size limit: it must come out as an error too.
expect "convert, file size limit" "space|large|limit|size" bash -c "ulimit -f 1024; exec '$binary' convert '$work/tight' '$work/small/out' --to compressed_tensors --quiet"

# Space goes while we write: the 20 MB fit at first. The ballast grows as soon as the first output file is there.
(
  for _ in $(seq 2000); do
    [ -z "$(ls "$work/small/out.partial/files" 2> /dev/null)" ] || break
    sleep 0.001
  done
  head -c 24M /dev/zero > "$work/small/ballast" 2> /dev/null
) &
filler=$!
message=$("$binary" convert "$work/tight" "$work/small/out" --to compressed_tensors --quiet --threads 1 --memory-budget 16MiB 2>&1 > /dev/null)
code=$?
wait $filler
left=$(ls -A "$work/small" | grep -v '^ballast$' | tr '\n' ' ')
if [ $code = 3 ] && [ -z "$left" ]; then
  echo "PASS  convert, filled while writing: exit 3: $message"
elif [ $code = 0 ] && [ -f "$work/small/out/model.safetensors.index.json" ] && "$binary" check "$work/small/out" --deep --quiet > /dev/null 2>&1; then
  echo "PASS  convert, filled while writing: was faster than the ballast, and OUT is whole"
else
  failures=$((failures + 1))
  echo "FAIL  convert, filled while writing: exit $code, left '$left': $message"
fi

echo "$failures failures"
[ $failures = 0 ]

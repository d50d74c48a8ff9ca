# shellcheck shell=bash disable=SC2034
# Sourced by ./quickstart, ./test and .ci/run: Debian packages, stages and their times. Bash.

BUILD_PACKAGES=(g++ cmake ninja-build pkg-config libfmt-dev nlohmann-json3-dev libcli11-dev libpcre2-dev libutf8proc-dev libxxhash-dev libeigen3-dev)
TEST_PACKAGES=(libgtest-dev librapidcheck-dev python3 libopenmpi-dev openmpi-bin)
VENV_PACKAGES=(python3 python3-venv)
CI_PACKAGES=(clang clang-tidy clang-format lld libclang-rt-14-dev wasi-libc libc++-14-dev-wasm32 libc++abi-14-dev-wasm32 libclang-rt-14-dev-wasm32 python3)

# Installs those of the named Debian packages that are missing; asks for nothing, and does not touch the network when there is nothing to install.
need_packages() {
  if ! command -v dpkg-query > /dev/null; then
    echo "This is not a Debian system: these packages, or what they are called here, must be installed: $*" >&2
    return 0
  fi
  local missing=() package
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo > /dev/null; then
      echo "Missing packages, and neither root nor sudo to install them: apt-get install ${missing[*]}" >&2
      return 1
    fi
    as_root=(sudo)
  fi
  echo "== Installing ${missing[*]}"
  local log
  log=$(mktemp)
  if ! { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q update &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "${missing[@]}"; } > "$log" 2>&1 < /dev/null; then
    cat "$log" >&2
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
}

# stage NAME COMMAND...: runs it, prints its seconds; a failure ends the script with the stage's name.
STAGE_TIMES=()
stage() {
  local name=$1 start=$SECONDS
  shift
  printf '\n== %s\n' "$name"
  # Not in a condition: `set -e` must stay in force inside the stage.
  trap 'printf "\n== FAILED: %s, after %d s\n" "'"$name"'" $((SECONDS - '"$start"')) >&2' EXIT
  "$@"
  trap - EXIT
  STAGE_TIMES+=("$(printf '%5d s  %s' $((SECONDS - start)) "$name")")
  printf '== %s: %d s\n' "$name" $((SECONDS - start))
}

#!/usr/bin/env bash
# Compiles the portable core (base to dialect without the POSIX files of io/) for wasm32-wasi, links tests/wasm/open_package.cc against it and, where node is
# installed, runs it. Proves that the core needs no threads, files, exceptions or 64-bit size_t.
#   tools/build_core_wasm.sh [CONFIGURED_BUILD_DIR]      default build/dev: its generated manifests are compiled
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build/dev}
out=build/wasm
mkdir -p "$out/include" "$out/obj"
[ -d "$build/generated" ] || { echo "$build is not configured: cmake --preset dev" >&2; exit 1; }

# Header-only libraries of the host, by name: /usr/include itself holds the host's C library.
for library in fmt nlohmann; do ln -sfn "/usr/include/$library" "$out/include/$library"; done

flags=(--target=wasm32-wasi -std=c++20 -O1 -fno-exceptions -ffp-contract=off -DFMT_HEADER_ONLY
  -DJSON_NOEXCEPTION -DJSON_NO_IO -DJSON_HAS_FILESYSTEM=0 -DJSON_HAS_EXPERIMENTAL_FILESYSTEM=0 -include cerrno  # nlohmann's lexer uses errno without its header
  -Wall -Wextra -Wshadow -Wno-missing-field-initializers -Werror -Isrc -Iinclude -isystem "$out/include")
compiler=clang++-14
command -v ccache > /dev/null && compiler="ccache $compiler"

layers=$(sed -n 's/^set(QB_LAYERS \(.* dialect\) .*/\1/p' cmake/layers.cmake)
posix=$(sed -n 's/^set(QB_POSIX_FILES "\(.*\)")$/\1/p' cmake/layers.cmake)
[ -n "$layers" ] && [ -n "$posix" ] || { echo "cmake/layers.cmake has changed its form" >&2; exit 1; }
sources=(tests/wasm/open_package.cc)
for layer in $layers; do
  for file in src/"$layer"/*.cc "$build/generated/${layer}_manifest.cc"; do
    if [ ! -f "$file" ] || [[ $file == *_test.cc || $file =~ ^src/$posix$ ]]; then continue; fi
    sources+=("$file")
  done
done

rm -f "$out"/obj/*.o
printf '%s\n' "${sources[@]}" | WASM_FLAGS="${flags[*]}" WASM_CXX=$compiler WASM_OUT=$out xargs -P "$(nproc)" -I{} sh -c \
  'object=$WASM_OUT/obj/$(echo "{}" | tr / _).o; $WASM_CXX $WASM_FLAGS -c "{}" -o "$object" || { echo "wasm32-wasi: {} does not compile" >&2; exit 255; }'
clang++-14 --target=wasm32-wasi -fno-exceptions "$out"/obj/*.o -o "$out/open_package.wasm"
echo "core for wasm32-wasi: ${#sources[@]} files, $(stat -c %s "$out/open_package.wasm") bytes linked"

if command -v node > /dev/null; then
  node --no-warnings -e '
    const { WASI } = require("node:wasi");
    const wasi = new WASI({ version: "preview1", args: ["open_package"], returnOnExit: true });
    WebAssembly.instantiate(require("fs").readFileSync(process.argv[1]), wasi.getImportObject())
      .then(({ instance }) => process.exit(wasi.start(instance)), (e) => { console.error(e); process.exit(1); });' "$out/open_package.wasm"
else
  echo "node is not installed: linked, not run"
fi

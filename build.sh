#!/usr/bin/env bash
# Everything from a bare Debian: ./build.sh [--yes] [deps|build|demo|test|bench|sanitize|fuzz|coverage]; `build` by default.
set -euo pipefail
cd "$(dirname "$0")"

build_packages=(gcc libc6-dev make cmake ninja-build pkg-config libprotobuf-c-dev protobuf-c-compiler libtcc-dev libpng-dev libjpeg-dev)
test_packages=(libcmocka-dev tcc clang-19 clang-format-19 clang-tidy-19 libclang-rt-19-dev python3 python3-venv
  gcc-aarch64-linux-gnu libc6-dev-arm64-cross gcc-riscv64-linux-gnu libc6-dev-riscv64-cross qemu-user-static)
venv=.venv
yes=no

say() { printf '%s\n' "$*" >&2; }

# Installs what is missing of the named Debian packages, asking first where somebody can answer.
need() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  say "To install with apt-get: ${missing[*]}"
  if [ "$yes" = no ] && [ -z "${CI:-}" ] && [ -t 0 ]; then
    read -r -p "Install them now? [y/N] " answer
    case "$answer" in [yY]*) ;; *) say "Nothing was installed."; exit 3 ;; esac
  fi
  local sudo=()
  [ "$(id -u)" -eq 0 ] || sudo=(sudo)
  "${sudo[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# clang-19 comes from Debian 13 or from backports of 12; where neither has it, the tests run without clang.
have_package() { apt-cache policy "$1" 2>/dev/null | grep -q 'Candidate: [0-9]'; }

python_packages() {
  if [ ! -x "$venv/bin/python" ]; then
    say "Making $venv with the packages of tests/requirements.txt"
    python3 -m venv "$venv"
  fi
  if ! cmp -s tests/requirements.txt "$venv/installed.txt"; then
    "$venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0
    "$venv/bin/pip" install -q --disable-pip-version-check -r tests/requirements.txt
    cp tests/requirements.txt "$venv/installed.txt"
  fi
}

deps() { need "${build_packages[@]}"; }

build() {
  deps
  cmake --preset release ${1:+-DMOECC_TESTS=$1} >/dev/null
  cmake --build --preset release
}

demo() {
  build OFF
  examples/demo.sh
}

run_tests() {
  need "${build_packages[@]}" "${test_packages[@]}"
  python_packages
  cmake --preset release -DMOECC_TESTS=ON >/dev/null
  cmake --build --preset release
  "$venv/bin/python" tests/run.py build
}

sanitize() {
  need "${build_packages[@]}" "${test_packages[@]}"
  python_packages
  cmake --preset sanitize >/dev/null
  cmake --build --preset sanitize
  "$venv/bin/python" tests/run.py build-sanitize ctest
}

not_yet() { say "./build.sh $1 is not built yet."; exit 2; }

for argument in "$@"; do
  [ "$argument" = --yes ] && yes=yes
done
set -- $(printf '%s\n' "$@" | grep -v '^--yes$' || true)
case "${1:-build}" in
  deps) deps ;;
  build) build OFF ;;
  demo) demo ;;
  test) run_tests ;;
  sanitize) sanitize ;;
  bench) need "${build_packages[@]}" "${test_packages[@]}"; python_packages; build OFF; bench/run.sh "$venv/bin/python" ;;
  fuzz | coverage) not_yet "$1" ;;
  *) say "usage: ./build.sh [--yes] [deps|build|demo|test|bench|sanitize|fuzz|coverage]"; exit 2 ;;
esac

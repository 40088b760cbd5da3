#!/usr/bin/env bash
# Everything from a bare Debian: ./build.sh [--yes] [COMMAND], `build` by default; `./build.sh help` lists the commands.
# What is missing is installed: Debian packages with apt-get, Python packages into .venv.
set -euo pipefail
cd "$(dirname "$0")"

# "a|b": a or, where the distribution has no a, b.
build_packages=(gcc libc6-dev make cmake ninja-build pkg-config libprotobuf-c-dev protobuf-c-compiler libtcc-dev libpng-dev
  libjpeg-dev)
test_packages=(libcmocka-dev tcc valgrind 'clang-19|clang' 'clang-format-19|clang-format' 'clang-tidy-19|clang-tidy'
  gcc-aarch64-linux-gnu libc6-dev-arm64-cross gcc-riscv64-linux-gnu libc6-dev-riscv64-cross qemu-user-static)
bench_packages=('clang-19|clang' g++)
fuzz_packages=('clang-19|clang' 'libclang-rt-19-dev|libclang-rt-dev')
venv=.venv
yes=no

usage() {
  cat <<END
usage: ./build.sh [--yes] [COMMAND]

  deps            install what the build needs
  build           build/moecc (default)
  demo            compile examples/nano for its five tasks and run them on a scene and a photograph
  test            all tests, with what they need
  bench [OPTION]  time compiled networks against other runtimes, which it installs (bench --help: the options)
  sanitize        the tests once more, under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer
  fuzz [SECONDS]  look for inputs that break the readers of files; so long for each of them (60)
  coverage        which lines of the compiler the tests run

It says what it installs, and asks first, unless --yes is given, CI is set, or there is no terminal.
END
}

say() { printf '%s\n' "$*" >&2; }
fail() { say "build.sh: $*"; exit 3; }

# Runs a command; what it prints is shown only if it fails. The first argument says what it does.
quietly() {
  local what=$1 log status=0
  shift
  log=$(mktemp)
  "$@" >"$log" 2>&1 || status=$?
  [ "$status" -eq 0 ] || { cat "$log" >&2; rm -f "$log"; fail "$what failed (status $status): ${*}"; }
  rm -f "$log"
}

# ---- Debian packages ----

installed() { dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'install ok installed'; }
available() { apt-cache policy "$1" 2>/dev/null | grep -q 'Candidate: [^(]'; }

# Prints the alternatives of which none is installed.
missing_of() {
  local choice name
  for choice in "$@"; do
    for name in ${choice//|/ }; do
      installed "$name" && continue 2
    done
    echo "$choice"
  done
}

confirm() {
  if [ "$yes" = yes ] || [ -n "${CI:-}" ] || [ ! -t 0 ]; then return; fi
  read -r -p "Install them now? [y/N] " answer
  case "$answer" in [yY]*) ;; *) say "Nothing was installed."; exit 3 ;; esac
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

need() {
  local missing choice name chosen=()
  command -v dpkg-query >/dev/null || { need_elsewhere; return; }
  mapfile -t missing < <(missing_of "$@")
  [ ${#missing[@]} -gt 0 ] || return 0
  say "To install with apt-get: ${missing[*]}"
  if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
    fail "installing needs root, and there is no sudo. As root: apt-get install ${missing[*]%%|*}"
  fi
  confirm
  quietly "apt-get update (is there a network?)" as_root apt-get update -qq
  for choice in "${missing[@]}"; do
    for name in ${choice//|/ }; do
      if available "$name"; then chosen+=("$name"); continue 2; fi
    done
    fail "this distribution has no package $choice"
  done
  quietly "apt-get install" as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${chosen[@]}"
}

# Not a Debian: the tools must be there already.
need_elsewhere() {
  local tool
  for tool in gcc make cmake ninja pkg-config protoc-c; do
    command -v "$tool" >/dev/null || fail "there is no $tool, and no dpkg to install it with: see docs/dependencies.md"
  done
}

# ---- Python packages ----

# A Python that can make virtual environments: Debian's own cannot without python3-venv, others can.
find_python() {
  local candidate
  for candidate in python3 /usr/bin/python3; do
    if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

pip_install() { quietly "pip (is there a network?)" "$venv/bin/python" -m pip install -q --disable-pip-version-check --progress-bar off "$@"; }

python_packages() {
  local python
  if cmp -s tests/requirements.txt "$venv/installed.txt"; then return; fi
  python=$(find_python) || { need python3 python3-venv; python=$(find_python) || fail "no Python from 3.11 on with venv"; }
  say "Installing the packages of tests/requirements.txt into $venv"
  [ -x "$venv/bin/python" ] || quietly "making $venv" "$python" -m venv "$venv"
  pip_install "$(grep '^torch==' tests/requirements.txt)"
  pip_install -r tests/requirements.txt
  cp tests/requirements.txt "$venv/installed.txt"
}

# What compiled networks are measured against; the versions of what the tests use stay.
peer_packages() {
  python_packages
  if cmp -s bench/requirements.txt "$venv/installed-peers.txt"; then return; fi
  say "Installing the packages of bench/requirements.txt into $venv"
  pip_install -r bench/requirements.txt -c tests/requirements.txt
  cp bench/requirements.txt "$venv/installed-peers.txt"
}

# ---- commands ----

# Configures and builds a preset.
make_preset() {
  local preset=$1
  shift
  say "Building: cmake --preset $preset"
  quietly "cmake" cmake --preset "$preset" "$@"
  quietly "the build" cmake --build --preset "$preset"
}

first_of() { local name; for name in "$@"; do command -v "$name" >/dev/null && echo "$name" && return; done; fail "no $1"; }

build() {
  need "${build_packages[@]}"
  make_preset release "-DMOECC_TESTS=${1:-OFF}"
}

test_tools() {
  need "${build_packages[@]}" "${test_packages[@]}"
  python_packages
}

run_tests() {
  test_tools
  make_preset release -DMOECC_TESTS=ON
  "$venv/bin/python" tests/run.py build
}

sanitize() {
  test_tools
  make_preset sanitize
  make_preset threads
  "$venv/bin/python" tests/run.py build-sanitize ctest threads sanitize passes faults operators
}

fuzz() {
  test_tools
  need "${fuzz_packages[@]}"
  make_preset fuzz "-DCMAKE_C_COMPILER=$(first_of clang-19 clang)"
  tests/fuzz/run.sh build-fuzz "${1:-60}" "$venv/bin/python"
}

coverage() {
  test_tools
  make_preset coverage
  "$venv/bin/python" tests/coverage.py build-coverage
}

bench() {
  need "${build_packages[@]}" "${bench_packages[@]}"
  peer_packages
  make_preset release -DMOECC_TESTS=OFF
  "$venv/bin/python" -m bench "$@"
}

arguments=()
for argument in "$@"; do
  if [ "$argument" = --yes ]; then yes=yes; else arguments+=("$argument"); fi
done
set -- "${arguments[@]:-build}"
case "$1" in
  deps) need "${build_packages[@]}" ;;
  build) build ;;
  demo) build; examples/demo.sh ;;
  test) run_tests ;;
  sanitize) sanitize ;;
  fuzz) fuzz "${2:-}" ;;
  coverage) coverage ;;
  bench) shift; bench "$@" ;;
  help | --help | -h) usage ;;
  *) usage >&2; exit 2 ;;
esac

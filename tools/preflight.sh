#!/bin/sh
# Says, one line each, what this machine lacks for `make install` and what to do about it.
# Exit status: 0 if nothing is missing, else 1. PYTHON and CXX name the programs to use; with
# NO_COMPILER nothing is compiled.
cd "$(dirname "$0")/.." || exit 1

python=${PYTHON:-python3}
compiler=${CXX:-g++}
needed_gb=9 # .venv takes about 6 GB; pip unpacks and caches while it installs
status=0

missing() {
    echo "missing: $*" >&2
    status=1
}

# Python and its parts
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
case $version in
3.[0-9] | 3.10 | 2.*)
    missing "Python 3.11 or later ('$python' is $version): install a newer one and name it, e.g. make run PYTHON=python3.12"
    ;;
[0-9]*)
    "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
        missing "Python's venv and ensurepip: Debian/Ubuntu 'sudo apt install python3-venv', else a Python from python.org"
    [ -n "$NO_COMPILER" ] || "$python" -c 'import os, sysconfig
raise SystemExit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' >/dev/null 2>&1 ||
        missing "Python.h, which MemTorch is built with: Debian/Ubuntu 'sudo apt install python3-dev', Fedora 'sudo dnf install python3-devel'"
    ;;
*)
    missing "Python ('$python' does not run): Debian/Ubuntu 'sudo apt install python3 python3-venv python3-dev', Fedora 'sudo dnf install python3-devel', macOS 'brew install python'"
    ;;
esac

# A C++ compiler that finds its standard library (CXX may carry arguments, hence no quotes).
[ -n "$NO_COMPILER" ] || echo '#include <vector>' | $compiler -x c++ -E - >/dev/null 2>&1 ||
    missing "a C++ compiler, which MemTorch is built with ('$compiler' does not work): Debian/Ubuntu 'sudo apt install g++', Fedora 'sudo dnf install gcc-c++', macOS 'xcode-select --install'; or do without: make run NO_COMPILER=1"

# Disk space; what an interrupted install has already put into .venv counts.
free_kb=$(df -Pk . 2>/dev/null | awk 'NR == 2 { print $4 }')
have_kb=$(du -sk .venv 2>/dev/null | awk '{ print $1 }')
total_gb=$(((${free_kb:-0} + ${have_kb:-0}) / 1000000))
[ "$total_gb" -ge "$needed_gb" ] ||
    missing "disk space ($needed_gb GB are needed here, $total_gb GB are free): make room, or clone the project to a larger disk"

exit $status

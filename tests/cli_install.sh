#!/usr/bin/env bash
# cli_install.sh PROGRAM FOLDER: what `cmake --install` puts into FOLDER starts, and is the program that was built.
set -euo pipefail
program=$1 folder=$2

cmake --install "$(dirname "$program")" --prefix "$folder/installed" >install.log || { cat install.log; exit 1; }
got=$("$folder/installed/bin/dype-dist" --version)
want=$("$program" --version)
[ "$got" = "$want" ] || { echo "installed: got \"$got\", want \"$want\""; exit 1; }

#!/usr/bin/env bash
# docs/evidence.md is what models/demo/evaluate/tables.py makes of docs/evidence.csv, to the byte.
#   cli_evidence.sh PROGRAM FOLDER
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=/usr/bin/python3 # Debian's: the one whose numpy is a package
if ! "$python" -c 'import numpy' 2>/dev/null; then
    echo "not run: docs/evidence.md against its CSV (python3-numpy is not installed)"
    exit 0
fi
cp "$root/docs/evidence.csv" .
OPENBLAS_NUM_THREADS=1 "$python" "$root/models/demo/evaluate/tables.py" evidence.csv evidence.md
for file in evidence.md evidence-sizes.svg evidence-loss.svg; do
    cmp "$file" "$root/docs/$file"
done
# a table that does not follow from the CSV is seen
sed -i '0,/^picture,2x,yarn,0,discs,.*/s//picture,2x,yarn,0,discs,7/' evidence.csv
OPENBLAS_NUM_THREADS=1 "$python" "$root/models/demo/evaluate/tables.py" evidence.csv changed.md
if cmp -s changed.md evidence.md && grep -q '^picture,2x,yarn,0,discs,1$' "$root/docs/evidence.csv"; then
    echo "a changed count changed nothing" >&2
    exit 1
fi

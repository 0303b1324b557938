#!/usr/bin/env bash
# coverage.sh FILE [LEAST] [PATTERN]: the share of PTX instructions that were executed, from what VGPU_COVERAGE=FILE gathered
# over any number of processes; kernels that nobody launched count with all their instructions. Lists kernels, then the
# instructions never executed. Fails below LEAST percent. PATTERN (awk) chooses kernels by their mangled name.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
awk -F '\t' -v least="${2:-0}" -v pattern="${3:-.}" '
    $1 !~ pattern { next }
    $2 == "-" { if (!($1 in size)) absent[$1] = $3; next }
    {
        key = $1 SUBSEP $3
        if (!(key in text)) { size[$1]++; text[key] = $6; line[key] = $2; source[key] = $5; order[++n] = key }
        if ($4 == 1 && !(key in done)) { done[key] = 1; run[$1]++ }
    }
    END {
        for (k in absent) if (!(k in size)) { printf "%6.2f %% of %5d  %s (never launched)\n", 0, absent[k], k; all += absent[k] }
        for (k in size) { printf "%6.2f %% of %5d  %s\n", 100 * run[k] / size[k], size[k], k; all += size[k]; executed += run[k] }
        for (i = 1; i <= n; i++) {
            key = order[i]
            if (key in done) continue
            split(key, part, SUBSEP)
            printf "not executed: %s PTX line %s%s: %s\n", part[1], line[key], (source[key] + 0 ? " (source line " source[key] ")" : ""), text[key]
        }
        if (!all) { print "no kernel in the file"; exit 1 }
        share = 100 * executed / all
        printf "PTX coverage: %.2f %% (%d of %d instructions)\n", share, executed, all
        exit (share < least)
    }' "$1"

#include "noise_kind.h"

#include <stddef.h>

const char *const noise_kind_names[] = {"torch-cpu", "torch-cpu-legacy", "counter", "torch-cuda", NULL};

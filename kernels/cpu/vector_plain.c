/* Own vector code for any x86-64. */
#define VECTOR_TABLE vector_plain
#include "vector.inc.h"

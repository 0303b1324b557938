/* Own vector code for AVX2; CMake compiles *_avx2.c for it. */
#define VECTOR_TABLE vector_avx2
#include "vector.inc.h"

/* Own vector code for AVX-512; CMake compiles *_avx512.c for it. */
#define VECTOR_TABLE vector_avx512
#include "vector.inc.h"

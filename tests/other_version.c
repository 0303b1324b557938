/* The program as another version would be: for fault_ranks.c. */
#undef DYPE_VERSION
#define DYPE_VERSION "0.0.0-other"
#include "../src/main.c"

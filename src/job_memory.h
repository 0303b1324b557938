/* Memory that lives as long as a job: taken piece by piece, given back at once. Pieces never move. */
#ifndef DYPE_JOB_MEMORY_H
#define DYPE_JOB_MEMORY_H

#include <stddef.h>

typedef struct job_memory job_memory;

job_memory *job_memory_open(void); /* NULL when there is no memory */
/* Zeroed, aligned for anything; NULL when there is no memory. */
void *job_memory_take(job_memory *memory, size_t n_bytes);
void job_memory_close(job_memory *memory); /* accepts NULL */

#endif

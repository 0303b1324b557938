/* All pictures of a job on one sheet: thumbnails in the order of the job, row by row, each with its id below. A picture that
 * is not there is an empty tile of its shape.
 *
 *   tile     a box of `box` x (height of the grid row) px; the thumbnail, never larger than the picture, in its middle
 *   box      SHEET_BOX where pictures are square or tall, more where they are wide, so that a thumbnail has as many pixels
 *   columns  as many as make the sheet about square; the box shrinks where it would become wider than SHEET_WIDTH
 *
 * PNGs are read and the sheet is written row by row; one row of tiles is in memory. It has its name only when complete. */
#ifndef DYPE_CONTACT_SHEET_H
#define DYPE_CONTACT_SHEET_H

#include "job.h"
#include "report.h"

enum { SHEET_BOX = 320, SHEET_BOX_MIN = 64, SHEET_BOX_MAX = 640, SHEET_WIDTH = 4096, SHEET_GAP = 8 };

typedef struct sheet_layout {
    int box;           /* px */
    int n_columns, n_rows;
    int label_scale;   /* of the font */
    int label_height;  /* below a thumbnail, px */
    int width;         /* of the sheet, px */
} sheet_layout;

sheet_layout contact_sheet_layout(const job_picture *pictures, size_t n);
/* Of a thumbnail. */
void contact_sheet_fit(const sheet_layout *l, int width, int height, int *w, int *h);

/* ST_OUTPUT when it cannot be written; a picture that cannot be read is a warning. Rank 0. */
status contact_sheet_write(const char *path, const job_picture *pictures, size_t n, report *r);

#endif

#include "render_impl.h"

#include <stdlib.h>
#include <string.h>

/* Rank 0 reads the saved latent; it must be finished. */
static status read_saved(renderer *r, const char *path, checkpoint *saved)
{
    status st = ST_OK;
    if (!speaks(r)) return agree(r, ST_OK);
    st = checkpoint_read(saved, path);
    if (st == ST_OK && saved->step < saved->n_steps)
        st = err_set(ST_BAD_JOB, "%s: %s after step %d of %d: not finished; run its job to go on from there", path,
                     saved->picture, saved->step, saved->n_steps);
    return agree(r, st);
}

/* Whether its recipe is that of the latent; else, with tell, an error that names what differs. */
static status compare_recipe(renderer *r, const job_picture *p, const checkpoint *saved, const char *path, bool tell, int *same)
{
    status  st = ST_OK;
    picture x = {.job = p};
    char    differs[512];
    TRY(render_begin(r, &x));
    if (speaks(r)) *same = strcmp(saved->recipe_sha256, x.recipe.sha256) == 0;
    if (speaks(r) && tell && !*same)
        st = err_set(ST_BAD_JOB, "%s: of no picture of %s: what has its id, %s, differs in %s", path, r->opts.job->path, p->id,
                     recipe_difference(saved->recipe, x.recipe.json, differs, sizeof(differs)));
    TRY(agree(r, st));
    TRY(comm_bcast(r->comm, 0, same, sizeof(*same)));
fail:
    render_end(r, &x, st);
    return st;
}

status renderer_find(renderer *r, const char *path, const job_picture **found)
{
    status     st = ST_OK;
    const job *j = r->opts.job;
    checkpoint saved = {0};
    int        named = -1, same = false;
    TRY(read_saved(r, path, &saved));
    for (size_t i = 0; speaks(r) && i < j->n_pictures; i++)
        if (strcmp(j->pictures[i].id, saved.picture) == 0) named = (int)i;
    TRY(comm_bcast(r->comm, 0, &named, sizeof(named)));
    if (named >= 0) TRY(compare_recipe(r, &j->pictures[named], &saved, path, j->n_pictures == 1, &same));
    for (int i = 0; !same && i < (int)j->n_pictures; i++)
        if (i != named) {
            TRY(compare_recipe(r, &j->pictures[i], &saved, path, false, &same));
            if (same) named = i;
        }
    if (!same && named >= 0) TRY(compare_recipe(r, &j->pictures[named], &saved, path, true, &same));
    if (!same)
        st = err_set(ST_BAD_JOB, "%s: it is of %s, and no picture of %s has its recipe", path,
                     speaks(r) ? saved.picture : "another", j->path);
    TRY(agree(r, st));
    *found = &j->pictures[named];
fail:
    checkpoint_free(&saved);
    return st;
}

status renderer_decode(renderer *r, const job_picture *p, const char *path)
{
    status     st = ST_OK;
    picture    x = {.job = p, .keeps = true, .started = report_now()};
    checkpoint saved = {0};
    TRY(read_saved(r, path, &saved));
    TRY(render_begin(r, &x));
    TRY(render_claim(r, &x, true));
    free(x.found.latents);
    x.found = (keeper_found){.stage = KEPT_LATENT, .step = p->steps, .latents = saved.latents};
    saved.latents = NULL;
    TRY(render_gather(r, &x));
    TRY(render_decode(r, &x));
    TRY(render_finish(r, &x));
fail:
    checkpoint_free(&saved);
    render_end(r, &x, st);
    return st;
}

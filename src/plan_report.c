/* A plan as people and programs read it. */
#include <stdio.h>
#include <string.h>

#include "plan.h"

static const double MB = 1e6, GB = 1e9;

static void print_rows(const plan *p, report *r)
{
    const int n = plan_replica_ranks(p);
    int32_t   least = INT32_MAX, most = 0, idle = 0, n_text_ranks = 0;
    for (int i = 0; i < n; i++) {
        const int32_t rows = p->ranks[i].denoise.rows.count;
        least = rows < least ? rows : least;
        most = rows > most ? rows : most;
        idle += rows == 0;
        n_text_ranks += p->ranks[i].denoise.rows.n_text > 0;
    }
    report_line(r, "  rows      %d text + %d image: %d to %d per rank%s; %d rank%s text rows", p->n_text,
                p->geometry.n_image, least, most, idle > 0 ? ", some have none" : "", n_text_ranks,
                n_text_ranks == 1 ? " has" : "s have");
}

/* Parts of equal names add up. */
static void print_parts(const arena *a, const arena *b, report *r)
{
    for (int i = 0; i < a->n_parts; i++) {
        int64_t first = 0, other = 0;
        bool    seen = false;
        for (int k = 0; k < i; k++) seen = seen || strcmp(a->part[k].what, a->part[i].what) == 0;
        if (seen) continue;
        for (int k = 0; k < a->n_parts; k++)
            if (strcmp(a->part[k].what, a->part[i].what) == 0) first += (int64_t)a->part[k].bytes;
        for (int k = 0; b != NULL && k < b->n_parts; k++)
            if (strcmp(b->part[k].what, a->part[i].what) == 0) other += (int64_t)b->part[k].bytes;
        if (first < 50000 && other < 50000) continue; /* would be shown as 0.0 */
        if (b != NULL)
            report_line(r, "    %-40s %12.1f %12.1f", a->part[i].what, (double)first / MB, (double)other / MB);
        else
            report_line(r, "    %-40s %12.1f", a->part[i].what, (double)first / MB);
    }
}

static void print_line(report *r, const char *what, int64_t first, int64_t other, bool two)
{
    if (two)
        report_line(r, "    %-40s %12.1f %12.1f", what, (double)first / MB, (double)other / MB);
    else
        report_line(r, "    %-40s %12.1f", what, (double)first / MB);
}

static void print_mapped_weights(const plan *p, report *r)
{
    const int        n = plan_replica_ranks(p);
    const plan_rank *a = &p->ranks[0], *b = &p->ranks[n - 1];
    const bool       two = n > 1;
    report_line(r, "   weights, mapped and shared by the ranks of a node");
    print_line(r, "image stream and single blocks", p->weights.image, p->weights.image, two);
    print_line(r, "text stream", a->mapped - p->weights.image, b->mapped - p->weights.image, two);
    print_line(r, "modulation (read once, before the loop)", p->weights.modulation / n, p->weights.modulation / n, two);
    print_line(r, "encoders (before the loop)", p->weights.encoders, 0, two);
    print_line(r, "VAE decoder (after the loop)", p->weights.vae, p->weights.vae, two);
}

/* What a rank's card holds at once, phase by phase (design D5). */
static void print_card(const plan *p, report *r)
{
    const int        n = plan_replica_ranks(p);
    const plan_rank *a = &p->ranks[0], *b = &p->ranks[n - 1];
    const plan_card *x = &a->card, *y = &b->card;
    const int64_t    modulation = p->weights.modulation / n;
    const bool       two = n > 1;
    report_line(r, "   on the card of %.2f GB, all the time", (double)p->machine.memory_bytes / GB);
    print_line(r, "context and libraries, about", x->libraries, y->libraries, two);
    print_line(r, "stays free", x->reserve, y->reserve, two);
    if (x->encode > 0) {
        report_line(r, "   on the card, encode");
        print_line(r, "T5 and CLIP", p->weights.encoders, 0, two);
        print_line(r, "with the buffers above and all the time", x->encode, y->encode, two);
    }
    report_line(r, "   on the card, before the step loop");
    print_line(r, "modulation, a share each", modulation, modulation, two);
    print_line(r, "with the loop's buffers and all the time", x->modulation, y->modulation, two);
    report_line(r, "   on the card, step loop");
    print_line(r, "image stream and single blocks", p->weights.image, p->weights.image, two);
    print_line(r, "text stream", a->mapped - p->weights.image, b->mapped - p->weights.image, two);
    print_line(r, "buffers of the step loop", a->denoise_bytes, b->denoise_bytes, two);
    print_line(r, "weights and buffers", a->mapped + a->denoise_bytes, b->mapped + b->denoise_bytes, two);
    print_line(r, "with all the time", x->loop, y->loop, two);
    report_line(r, "   on the card, decode");
    print_line(r, "VAE decoder", p->weights.vae, p->weights.vae, two);
    print_line(r, "with the buffers above and all the time", x->decode, y->decode, two);
}

/* Whether the weights of a rank's step loop stay, and what passes over the host's link when they do not. */
static void print_residency(const plan *p, int rank, report *r)
{
    const plan_rank *k = &p->ranks[rank];
    const plan_card *c = &k->card;
    const char      *kind = k->denoise.rows.n_text > 0 ? "with" : "without";
    if (c->streamed == 0) {
        report_line(r, "  rank %d    %s text rows: fits: %.2f GB in the step loop, of %.2f", rank, kind, (double)c->loop / GB,
                    (double)p->machine.memory_bytes / GB);
        return;
    }
    const double late = c->upload_s - c->hiding_s;
    char         shows[64] = "hidden";
    if (late > 0) snprintf(shows, sizeof(shows), "%.3g s per step show", late);
    report_line(r,
                "  rank %d    %s text rows: does not fit: %.2f GB in the step loop, of %.2f; %.2f GB of weights stay, %.2f "
                "pass in each step from as much pinned host memory through a ring of %.2f: %.3g s at %.3g GB/s, under "
                "%.3g s of work on their blocks: %s", rank, kind, (double)c->loop / GB, (double)p->machine.memory_bytes / GB,
                (double)c->resident / GB, (double)c->streamed / GB, (double)c->ring / GB, c->upload_s,
                p->machine.host_link / GB, c->hiding_s, shows);
}

/* Rank 0 holds text rows and gathers the latent; the last rank stands for those that do not. */
static void print_memory(const plan *p, report *r)
{
    const int        n = plan_replica_ranks(p);
    const plan_rank *a = &p->ranks[0], *b = &p->ranks[n - 1];
    const bool       two = n > 1;
    if (two)
        report_line(r, "  memory, MB                                       rank 0      rank %d", n - 1);
    else
        report_line(r, "  memory, MB");
    if (a->encode_bytes > 0) {
        report_line(r, "   encode, anonymous");
        print_parts(&a->encode, two ? &b->encode : NULL, r);
    }
    report_line(r, "   step loop, anonymous");
    print_parts(&a->denoise.parts, two ? &b->denoise.parts : NULL, r);
    report_line(r, "   decode, anonymous");
    print_parts(&a->decode, two ? &b->decode : NULL, r);
    report_line(r, "   all the time, anonymous");
    print_line(r, "latents and text rows on the host", a->host_bytes, b->host_bytes, two);
    print_line(r, "kernels' scratch, about", a->scratch_bytes, b->scratch_bytes, two);
    print_line(r, "largest at once, anonymous", a->anonymous, b->anonymous, two);
    report_line(r, "   shared memory: none but MPI's own");
    if (p->machine.own_memory) print_card(p, r);
    else print_mapped_weights(p, r);
}

static void print_time(const plan *p, report *r)
{
    const int n = plan_replica_ranks(p);
    int64_t   sent = 0;
    for (int i = 0; i < n; i++) sent += p->ranks[i].sent;
    report_line(r, "  sent      %.1f MB per step by all ranks", (double)sent / MB);
    report_line(r, "  work      %.4g TFLOP per step (attention %.0f %%), %.4g for the decode",
                (p->flops.attention + p->flops.products) * 1e-12,
                100 * p->flops.attention / (p->flops.attention + p->flops.products),
                (p->flops.conv + p->flops.mid_attention) * 1e-12);
    if (p->machine.attention <= 0) return;
    report_line(r,
                "  time      %.3g s per step on %s: attention %.3g, products %.3g, rest %.3g, waiting for others %.3g; "
                "%d steps %.4g s", p->step.total, p->machine.name, p->step.attention, p->step.products, p->step.rest,
                p->step.waiting, p->picture->steps, p->step.total * p->picture->steps);
    report_line(r,
                "  decode    %.3g s: convolutions %.3g, attention %.3g, waiting for others %.3g, writing the PNG %.3g",
                p->decode.total, p->decode.convolutions, p->decode.attention, p->decode.waiting, p->decode.png);
}

void plan_print(const plan *p, report *r)
{
    report_line(r, "%s: %d x %d, %d rank%s", p->picture->id, p->geometry.width, p->geometry.height, p->n_ranks,
                p->n_ranks == 1 ? "" : "s");
    report_line(r, "  grid      replicas %d x ulysses %d x ring %d, %s: %s", p->shape.replicas, p->shape.ulysses,
                p->shape.ring, p->schedule == EXCHANGE_NEIGHBOUR ? "neighbour" : "ordered", p->why);
    print_rows(p, r);
    print_time(p, r);
    if (p->machine.own_memory) {
        print_residency(p, 0, r);
        if (plan_replica_ranks(p) > 1) print_residency(p, plan_replica_ranks(p) - 1, r);
    }
    print_memory(p, r);
}

void plan_print_short(const plan *p, report *r)
{
    char time[96] = "";
    if (p->machine.attention > 0)
        snprintf(time, sizeof(time), "; about %.3g s per step, decode %.3g s", p->step.total, p->decode.total);
    report_line(r, "plan for %s: replicas %d x ulysses %d x ring %d (%s); at most %.2f GB per rank%s", p->picture->id,
                p->shape.replicas, p->shape.ulysses, p->shape.ring, p->why, (double)plan_largest(p) / GB, time);
}

/* Parts of equal names add up. */
static json_t *parts_json(const arena *a)
{
    json_t *parts = json_object();
    for (int i = 0; i < a->n_parts; i++) {
        const char *what = a->part[i].what;
        json_object_set_new(parts, what, json_integer(json_integer_value(json_object_get(parts, what)) +
                                                      (json_int_t)a->part[i].bytes));
    }
    return parts;
}

static json_t *card_json(const plan_card *c)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f}", "encode_bytes", (json_int_t)c->encode,
                     "modulation_bytes", (json_int_t)c->modulation, "loop_bytes", (json_int_t)c->loop, "decode_bytes",
                     (json_int_t)c->decode, "room_bytes", (json_int_t)c->room, "ring_bytes", (json_int_t)c->ring,
                     "resident_bytes", (json_int_t)c->resident, "streamed_bytes", (json_int_t)c->streamed, "upload_s",
                     c->upload_s, "hiding_s", c->hiding_s);
}

static json_t *rank_json(const plan *p, const plan_rank *k)
{
    json_t *rank = json_pack(
        "{s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o}", "rows", k->denoise.rows.count, "text_rows",
        k->denoise.rows.n_text, "anonymous_bytes", (json_int_t)k->anonymous, "host_bytes", (json_int_t)k->host_bytes,
        "scratch_bytes", (json_int_t)k->scratch_bytes, "mapped_bytes", (json_int_t)k->mapped, "sent_bytes",
        (json_int_t)k->sent, "encode", parts_json(&k->encode), "step_loop", parts_json(&k->denoise.parts), "decode",
        parts_json(&k->decode));
    if (p->machine.own_memory) json_object_set_new(rank, "card", card_json(&k->card));
    return rank;
}

json_t *plan_json(const plan *p)
{
    json_t *ranks = json_array();
    for (int i = 0; i < plan_replica_ranks(p); i++) json_array_append_new(ranks, rank_json(p, &p->ranks[i]));
    json_t *all = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:s}", "picture", p->picture->id, "width",
                            p->geometry.width, "height", p->geometry.height, "steps", p->picture->steps, "n_ranks",
                            p->n_ranks, "replicas",
                            p->shape.replicas, "ulysses", p->shape.ulysses, "ring", p->shape.ring, "why", p->why,
                            "machine", p->machine.name);
    const struct {
        const char *name;
        double      value;
    } figures[] = {
        {"picture_s", p->picture->steps * p->step.total + p->decode.total},
        {"step_s", p->step.total},
        {"attention_s", p->step.attention},
        {"products_s", p->step.products},
        {"waiting_s", p->step.waiting},
        {"upload_s", p->step.upload},
        {"decode_s", p->decode.total},
        {"png_s", p->decode.png},
        {"flops_per_step", p->flops.attention + p->flops.products},
        {"flops_decode", p->flops.conv + p->flops.mid_attention},
        {"link_bytes_s", p->machine.link < 1e18 ? p->machine.link : 0}, /* one rank has none */
    };
    for (size_t i = 0; i < sizeof(figures) / sizeof(figures[0]); i++)
        json_object_set_new(all, figures[i].name, json_real(figures[i].value));
    json_object_set_new(all, "weights_bytes", json_integer(p->weights.image + p->weights.text + p->weights.modulation +
                                                           p->weights.encoders + p->weights.vae));
    json_object_set_new(all, "ranks", ranks);
    return all;
}

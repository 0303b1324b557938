#include "rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "device_kernels.h"
#include "tiny_model.h"

int rig_devices(rig_device out[RIG_DEVICES])
{
    if (test_device_is_cuda()) {
        out[0] = (rig_device){"cuda", DEVICE_CUDA, ISA_PLAIN};
        return 1;
    }
    const char *wanted = getenv("DYPE_TEST_ISA");
    cpu_isa isa = cpu_isa_best();
    for (cpu_isa i = ISA_PLAIN; wanted != NULL && i <= cpu_isa_best(); i++)
        if (strcmp(wanted, cpu_isa_name(i)) == 0) isa = i;
    if (wanted != NULL && strcmp(wanted, cpu_isa_name(isa)) != 0)
        print_message("not run: %s kernels on the processor itself (%s instead)\n", wanted, cpu_isa_name(isa));
    out[0] = (rig_device){"cpu", DEVICE_CPU, isa};
    out[1] = (rig_device){"strict", DEVICE_STRICT, isa};
    out[2] = (rig_device){"plain", DEVICE_PLAIN, isa};
    return RIG_DEVICES;
}

void rig_expect(status st)
{
    if (st != ST_OK) fail_msg("%s: %s", status_name(st), err_text());
}

static bool wants_all(void *ctx, const char *name, int step)
{
    (void)ctx, (void)name, (void)step;
    return true;
}

static status keep(void *ctx, const char *name, int step, const float *rows, int64_t first_row, int64_t n_rows,
                   int64_t width)
{
    (void)first_row;
    rig *r = ctx;
    seen_tensor t = {.step = step, .n = (size_t)(n_rows * width)};
    snprintf(t.name, sizeof(t.name), "%s", name);
    t.rows = malloc(t.n * sizeof(float) + 1);
    seen_tensor *grown = realloc(r->seen, (size_t)(r->n_seen + 1) * sizeof(*grown));
    if (grown != NULL) r->seen = grown;
    if (t.rows == NULL || grown == NULL) {
        free(t.rows);
        return err_set(ST_NO_MEMORY, "rig: %s", name);
    }
    memcpy(t.rows, rows, t.n * sizeof(float));
    r->seen[r->n_seen++] = t;
    return ST_OK;
}

void rig_open(rig *r, char which, int parts, rig_device dev)
{
    const tiny_model tiny = tiny_model_get(which);
    const device_opts opts = {.kind = dev.kind, .isa = dev.isa, .n_threads = 1};
    *r = (rig){.tap = {.ctx = r, .wants = wants_all, .take = keep}};
    rig_expect(tempdir_open(r->dir));
    rig_expect(tiny_model_write(&tiny, parts, r->dir));
    rig_expect(model_open(&r->model, r->dir));
    rig_expect(device_open(&r->dev, &opts));
    rig_expect(stream_open(&r->compute, r->dev));
}

void rig_close(rig *r)
{
    rig_forget(r);
    free(r->seen);
    stream_close(r->compute);
    device_close(r->dev);
    model_close(r->model);
    tempdir_close(r->dir);
}

const float *rig_seen(const rig *r, int step, size_t n, const char *fmt, ...)
{
    char name[64];
    va_list args;
    va_start(args, fmt);
    vsnprintf(name, sizeof(name), fmt, args);
    va_end(args);
    for (int i = 0; i < r->n_seen; i++) {
        const seen_tensor *t = &r->seen[i];
        if (t->step != step || strcmp(t->name, name) != 0) continue;
        if (t->n != n) fail_msg("%s: %zu values, want %zu", name, t->n, n);
        return t->rows;
    }
    fail_msg("%s at step %d did not pass the tap", name, step);
    return NULL;
}

void rig_forget(rig *r)
{
    for (int i = 0; i < r->n_seen; i++)
        free(r->seen[i].rows);
    r->n_seen = 0;
}

void rig_check(const char *name, const float *got, const float *want, size_t n, double limit)
{
    double error = rel_l2(got, want, n);
    if (!(error <= limit)) fail_msg("%s: relative error %.2e, limit %.0e", name, error, limit);
}

void rig_check_bf16(const char *name, const float *got, const float *bf16, const float *fp32, size_t n)
{
    double ours = rel_l2(got, fp32, n), reference = rel_l2(bf16, fp32, n);
    if (!(ours <= 1.5 * reference)) fail_msg("%s: error %.2e, the bf16 reference's is %.2e", name, ours, reference);
}

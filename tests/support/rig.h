/* What a parity test runs on: a tiny model written, opened and put on a device of one rank, and a tap that keeps all
 * tensors that pass. What goes wrong fails the running test. */
#ifndef DYPE_RIG_H
#define DYPE_RIG_H

#include "comm.h"
#include "device.h"
#include "model.h"
#include "tap.h"
#include "tempdir.h"
#include "vectors.h"

typedef struct seen_tensor {
    char name[64];
    int step;
    float *rows;
    size_t n;
} seen_tensor;

typedef struct rig {
    char dir[TEMPDIR_PATH];
    model *model;
    device *dev;
    stream *compute;
    tap tap; /* hands every tensor to the rig */
    seen_tensor *seen;
    int n_seen;
} rig;

typedef struct rig_device {
    const char *name;
    device_kind kind;
    cpu_isa isa;
} rig_device;

enum { RIG_DEVICES = 3 };

/* cpu, strict and plain, in this order; with DYPE_TEST_DEVICE=cuda the GPU alone. Returns how many. The instruction set is
 * the best one, or that of the environment's DYPE_TEST_ISA: a process can have only one. */
int rig_devices(rig_device out[RIG_DEVICES]);

/* which: tiny_model_get; parts: of tiny_model_write. */
void rig_open(rig *r, char which, int parts, rig_device dev);
void rig_close(rig *r);

/* The n values that passed the tap under this name; lent until rig_forget. */
const float *rig_seen(const rig *r, int step, size_t n, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
void rig_forget(rig *r);

/* Fails the test with err_text when st is not ST_OK. */
void rig_expect(status st);

/* Fails unless rel_l2(got, want) <= limit. */
void rig_check(const char *name, const float *got, const float *want, size_t n, double limit);

/* Fails unless got is at most 1.5 times as far from the fp32 reference as the bf16 reference is. */
void rig_check_bf16(const char *name, const float *got, const float *bf16, const float *fp32, size_t n);

#endif

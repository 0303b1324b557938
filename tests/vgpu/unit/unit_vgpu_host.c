/* Host code on the virtual GPU: every check with a program that breaks it, which must be told and end badly, and its
 * corrected twin. The programs are cases.cu, built by nvcc as any program is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

enum { FAULT = 99, WRONG_VALUE = 1, KILLED = 128 + 11 };

/* Runs `cases NAME variant`, in plain order unless settings say else; returns its status as a shell would, and what it wrote. */
static int run(const char *settings, const char *name, int variant, char *text, size_t room)
{
    char command[1024];
    snprintf(command, sizeof command, "LD_LIBRARY_PATH=%s VGPU_SEED=0 %s exec %s %s %d 2>&1", VGPU_DIR, settings, VGPU_CASES, name,
             variant);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    size_t n = fread(text, 1, room - 1, f);
    text[n] = 0;
    int status = pclose(f);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static const struct {
    const char *name;
    int variant;
    const char *message; /* part of what the faulty program must say */
    int status;
} faults[] = {
    {"vectors", 1, "0 bytes past the end of allocation 2 (cudaMalloc, 4000 bytes", WRONG_VALUE},
    {"symbols", 1, "assertion 'v == 7' failed at", FAULT},
    {"copies_2d", 1, "cudaMemcpy2D to the host: byte 16 of row 0 was never written", WRONG_VALUE},
    {"use_after_free", 1, "0 bytes into freed allocation 1", FAULT},
    {"double_free", 1, "double free", FAULT},
    {"free_inside", 1, "not the start of an allocation: 4 bytes into allocation 1", FAULT},
    {"leak_memory", 1, "leak: cudaMalloc never freed: allocation 1 (4000 bytes", FAULT},
    {"leak_pinned", 1, "leak: pinned host memory never freed: 100 bytes", FAULT},
    {"leak_stream", 1, "leak: stream", FAULT},
    {"leak_event", 1, "leak: event", FAULT},
    {"leak_object", 1, "leak: handle of a library", FAULT},
    {"copy_past_end", 1, "source of 4004 bytes", FAULT},
    {"copy_direction", 1, "the target is said to be device memory", FAULT},
    {"copy_unwritten", 1, "byte 0 of row 0 was never written", FAULT},
    {"host_pointer", 1, "no device address", FAULT},
    {"host_touches_device", 1, "", KILLED},
    {"other_device", 1, "the kernel runs on device 1, without peer access", FAULT},
    {"shared_limit", 1, "cudaFuncAttributeMaxDynamicSharedMemorySize", 0},
    {"too_many_threads", 1, "__launch_bounds__ says 128", 0},
    {"foreign_stream", 1, "a stream of device 0 while device 1 is current", FAULT},
    {"dead_stream", 1, "a stream that is not live", FAULT},
    {"wait_event", 1, "wrong value: another stream's result: got 1, want 2", WRONG_VALUE},
    {"wait_event", 2, "wrong value: another stream's result: got 1, want 2", WRONG_VALUE},
    {"wait_event", 3, "wrong value: another stream's result: got 1, want 2", WRONG_VALUE},
    {"host_reads_early", 1, "wrong value: a copy to pinned memory: got 0, want 5", WRONG_VALUE},
    {"staging_reused", 1, "wrong value: what was in the buffer when it was copied: got 2, want 1", WRONG_VALUE},
    {"legacy_stream", 1, "wrong value: work of another stream: got 1, want 2", WRONG_VALUE},
    {"unfinished_work", 1, "ends with work that nobody waited for, the first: fill_kernel", FAULT},
    {"queries", 1, "not a live event", FAULT},
    {"host_function", 1, "a host function on a stream made a CUDA call", FAULT},
    {"library_work", 1, "touch: operand: 4004 bytes", FAULT},
};

static void each_fault_is_told(void **state)
{
    (void)state;
    char text[16384];
    int wrong = 0;
    for (size_t k = 0; k < sizeof faults / sizeof faults[0]; k++) {
        int status = run("VGPU_DEVICES=3", faults[k].name, faults[k].variant, text, sizeof text);
        if (status == faults[k].status && strstr(text, faults[k].message)) continue;
        print_error("%s %d: got status %d and '%s', want %d and '%s'\n", faults[k].name, faults[k].variant, status,
                    text, faults[k].status, faults[k].message);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

/* The corrected programs end with 0 and say no word of a fault, in plain order and in others. */
static void corrected_programs_are_silent(void **state)
{
    (void)state;
    char text[16384];
    int wrong = 0;
    static const char *settings[] = {"VGPU_DEVICES=3", "VGPU_DEVICES=3 VGPU_SEED=1",
                                     "VGPU_DEVICES=3 VGPU_SEED=20261124 VGPU_THREADS=3"};
    for (size_t s = 0; s < 3; s++)
        for (size_t k = 0; k < sizeof faults / sizeof faults[0]; k++) {
            if (faults[k].variant != 1) continue;
            if (s && !strcmp(faults[k].name, "queries")) continue; /* asks for work that is surely not done yet */
            int status = run(settings[s], faults[k].name, 0, text, sizeof text);
            int refusals = !strcmp(faults[k].name, "shared_limit"); /* one launch is refused on purpose */
            if (status == 0 && strstr(text, "end\n") && (refusals || !strstr(text, "vgpu:"))) continue;
            print_error("%s %s: status %d and '%s'\n", settings[s], faults[k].name, status, text);
            wrong++;
        }
    assert_int_equal(wrong, 0);
    assert_int_equal(run("VGPU_DEVICES=3", "properties", 0, text, sizeof text), 0);
    assert_int_equal(run("VGPU_DEVICES=3", "symbols", 0, text, sizeof text), 0);
    assert_non_null(strstr(text, "thread 2 of printf: 2.500\n"));
}

/* Two streams that do not know of each other, and a host that waits for both: some order of the seeds shows it. */
static void seeds_find_what_the_plain_order_hides(void **state)
{
    (void)state;
    char text[16384], settings[64];
    int found = 0;
    for (int seed = 0; seed <= 12; seed++) {
        snprintf(settings, sizeof settings, "VGPU_SEED=%d", seed);
        int status = run(settings, "wait_event", 4, text, sizeof text);
        assert_true(status == 0 || status == WRONG_VALUE);
        assert_true(seed != 0 || status == 0); /* plain order: the producer's stream is older */
        found += status == WRONG_VALUE;
        assert_int_equal(run(settings, "wait_event", 0, text, sizeof text), 0);
    }
    assert_in_range(found, 1, 12);
}

/* A fault with VGPU_ON_ERROR=abort ends the process at once, one without leaks allowed is silent. */
static void settings_choose_the_end(void **state)
{
    (void)state;
    char text[16384];
    assert_int_equal(run("VGPU_ON_ERROR=abort", "use_after_free", 1, text, sizeof text), 128 + 6);
    assert_int_equal(run("VGPU_EXIT_CODE=3", "leak_memory", 1, text, sizeof text), 3);
    assert_int_equal(run("VGPU_LEAKS=0", "leak_memory", 1, text, sizeof text), 0);
    /* Work that is done when it is put hides the missing wait: why it is not the default. */
    assert_int_equal(run("VGPU_EAGER=1", "wait_event", 1, text, sizeof text), 0);
    assert_int_equal(run("VGPU_DEVICES=0", "vectors", 0, text, sizeof text), 1);
    assert_non_null(strstr(text, "cudaErrorNoDevice"));
    assert_int_equal(run("CUDA_VISIBLE_DEVICES=1 VGPU_DEVICES=3", "properties", 0, text, sizeof text), 1);
    assert_non_null(strstr(text, "devices: got 1"));
}

/* Two processes into one file: what either has executed counts, and kernels that none launched count in full. */
static void coverage_is_gathered(void **state)
{
    (void)state;
    char text[65536], file[] = "/tmp/vgpu-coverage-XXXXXX", settings[128], command[512];
    int fd = mkstemp(file);
    assert_true(fd >= 0);
    snprintf(settings, sizeof settings, "VGPU_COVERAGE=%s", file);
    assert_int_equal(run(settings, "leak_event", 0, text, sizeof text), 0);
    snprintf(command, sizeof command, "%s/coverage.sh %s", VGPU_SOURCE, file);
    for (int part = 0; part < 3; part++) {
        FILE *f = popen(command, "r");
        assert_non_null(f);
        text[fread(text, 1, sizeof text - 1, f)] = 0;
        pclose(f);
        assert_non_null(strstr(text, "PTX coverage: "));
        double share = atof(strstr(text, "PTX coverage: ") + 14);
        if (part == 0) {
            assert_true(share == 0);
            assert_non_null(strstr(text, "_Z10add_kernelPKfS0_Pfi (never launched)"));
            assert_int_equal(run(settings, "vectors", 0, text, sizeof text), 0);
        } else if (part == 1) { /* all of add and sum, nothing of the others */
            assert_non_null(strstr(text, "100.00 % of"));
            assert_non_null(strstr(text, "_Z11fill_kernelPffi (never launched)"));
            assert_int_equal(run(settings, "shared_limit", 0, text, sizeof text), 0);
            snprintf(command, sizeof command, "%s/coverage.sh %s 0 dynamic", VGPU_SOURCE, file);
        } else {
            assert_true(share == 100);
        }
    }
    snprintf(command, sizeof command, "%s/coverage.sh %s 99 >/dev/null", VGPU_SOURCE, file);
    assert_int_not_equal(system(command), 0);
    close(fd);
    unlink(file);
}

/* Many processes that end at once lose nothing of each other, and the file does not grow with their number. */
static void coverage_of_many_processes(void **state)
{
    (void)state;
    enum { TIMES = 6 };
    static const char *const cases[] = {"vectors", "shared_limit", "leak_event"};
    char text[65536], folder[] = "/tmp/vgpu-coverage-XXXXXX", command[2048];
    double share[2];
    assert_non_null(mkdtemp(folder));
    for (int many = 0; many < 2; many++) {
        snprintf(command, sizeof command,
                 "cd %s; for i in $(seq %d); do for c in %s %s %s; do LD_LIBRARY_PATH=%s VGPU_COVERAGE=%d %s $c 0 >/dev/null 2>&1 %s"
                 " done; done; wait; %s/coverage.sh %d",
                 folder, many ? TIMES : 1, cases[0], cases[1], cases[2], VGPU_DIR, many, VGPU_CASES, many ? "&" : ";",
                 VGPU_SOURCE, many);
        FILE *f = popen(command, "r");
        assert_non_null(f);
        text[fread(text, 1, sizeof text - 1, f)] = 0;
        pclose(f);
        assert_non_null(strstr(text, "PTX coverage: "));
        share[many] = atof(strstr(text, "PTX coverage: ") + 14);
    }
    assert_true(share[0] > 0 && share[1] == share[0]);
    snprintf(command, sizeof command, "cd %s && cmp 0 1", folder);
    assert_int_equal(system(command), 0);
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_fault_is_told), cmocka_unit_test(corrected_programs_are_silent),
        cmocka_unit_test(seeds_find_what_the_plain_order_hides), cmocka_unit_test(settings_choose_the_end),
        cmocka_unit_test(coverage_is_gathered), cmocka_unit_test(coverage_of_many_processes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

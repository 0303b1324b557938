/* A grid: its blocks over threads, in an order that the seed turns around; and what operations call when something is
 * wrong. */
#include "launch.h"

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <time.h>
#include "execute.h"
#include "fault.h"
#include "memory.h"
#include "settings.h"

namespace vgpu
{
namespace
{

/* Which block runs as number k: every block once, in an order that the seed turns around. */
u64 permuted(u64 k, u64 n, u64 seed, u64 launch)
{
    if (!seed || n < 2) return k;
    u64 draw = seed_mix(seed ^ seed_mix(launch));
    u64 step = draw % n, begin = (draw >> 32) % n;
    auto divisor = [](u64 a, u64 b) {
        while (b) {
            u64 t = a % b;
            a = b;
            b = t;
        }
        return a;
    };
    while (step == 0 || divisor(step, n) != 1)
        step = (step + 1) % n;
    return (begin + static_cast<u64>(static_cast<unsigned __int128>(k) * step % n)) % n;
}

/* Not inlined: the thread's own worker is looked up once per launch. */
__attribute__((noinline)) void work_with(Worker &worker, Launch &l)
{
    Block b = {};
    block_prepare(worker, l, b);
    u64 n = static_cast<u64>(l.grid.x) * l.grid.y * l.grid.z;
    try {
        while (!l.failed.load(std::memory_order_relaxed)) {
            u64 k = l.next_block.fetch_add(1);
            if (k >= n) break;
            block_run(worker, l, b, permuted(k, n, settings().seed, l.number));
        }
    } catch (const Stopped &) {
        l.failed = true;
    }
    u64 count = 0;
    for (int k = 0; k < b.n_warps; ++k)
        count += worker.warps[k].n_instr;
    l.n_instr += count;
}

void work(Launch &l)
{
    static thread_local Worker worker;
    work_with(worker, l);
}

/* Helpers that all take part in one launch at a time. */
class Pool
{
  public:
    void run(Launch *l)
    {
        std::lock_guard<std::mutex> one(use_);
        u64 blocks = static_cast<u64>(l->grid.x) * l->grid.y * l->grid.z;
        u64 helpers = std::min<u64>(static_cast<u64>(settings().n_threads - 1), blocks - 1);
        /* Small launches are done before anybody wakes up. */
        if (blocks * ((l->block.x * l->block.y * l->block.z + 31) / 32) * l->program->code.size() < 20000) helpers = 0;
        if (settings().check_global) {
            helpers = 0;
            global_races_begin();
        }
        {
            std::lock_guard<std::mutex> guard(lock_);
            while (threads_ < helpers) {
                ++threads_;
                std::thread(&Pool::help, this).detach();
            }
            launch_ = l;
            wanted_ = helpers;
        }
        wake_.notify_all();
        work(*l);
        std::unique_lock<std::mutex> guard(lock_);
        wanted_ = 0; /* who has not come by now is not needed */
        idle_.wait(guard, [&] { return busy_ == 0; });
        launch_ = nullptr;
    }

  private:
    std::mutex use_, lock_;
    std::condition_variable wake_, idle_;
    Launch *launch_ = nullptr;
    u64 threads_ = 0, wanted_ = 0, busy_ = 0;

    void help()
    {
        std::unique_lock<std::mutex> guard(lock_);
        for (;;) {
            wake_.wait(guard, [&] { return wanted_ > 0; });
            --wanted_;
            ++busy_;
            Launch *l = launch_;
            guard.unlock();
            work(*l);
            guard.lock();
            if (--busy_ == 0) idle_.notify_all();
        }
    }
};

Pool &pool()
{
    static Pool *p = new Pool; /* its threads may outlive everything */
    return *p;
}

std::mutex fault_lock;

} // namespace

bool launch_run(Launch *launch)
{
    pool().run(launch);
    return !launch->failed;
}

void warp_fault(Warp &w, const Instr &i, int lane, cudaError_t error, const char *format, ...)
{
    Block &b = *w.block;
    Launch &l = *b.launch;
    va_list args;
    va_start(args, format);
    std::string what = fault_vformat(format, args);
    va_end(args);
    std::lock_guard<std::mutex> guard(fault_lock);
    if (!l.failed.exchange(true)) { /* the first fault of a launch is the one that is told */
        const ProgramText &text = l.program->texts[i.text];
        u32 t = w.index * LANES + static_cast<u32>(lane < 0 ? 0 : lane);
        std::string source = text.source_line ? fault_format(", source line %d", text.source_line) : std::string();
        fault_report(
            l.device, error,
            fault_format(
                "%s\n    kernel %s, PTX line %u: %s%s\n    block (%u, %u, %u), thread (%u, %u, %u), warp %u, lane %d",
                what.c_str(), l.program->pretty.c_str(), text.line, text.text.c_str(), source.c_str(), b.id.x, b.id.y,
                b.id.z, t % l.block.x, t / l.block.x % l.block.y, t / l.block.x / l.block.y, w.index, lane));
    }
    throw Stopped{};
}

bool warp_find_range(Warp &w, u64 address, Range *range)
{
    return memory_find(w.block->launch->device, address, range);
}

void warp_bad_address(Warp &w, const Instr &i, int lane, u64 address, unsigned n_bytes, const char *verb)
{
    int owner = memory_device_of(address), device = w.block->launch->device;
    std::string more = owner >= 0 && owner != device
                           ? fault_format(" (the kernel runs on device %d, without peer access)", device)
                           : std::string();
    u64 last = address + n_bytes - 1;
    const Allocation *a = memory_allocation(address);
    std::string where = a && a->device == device ? memory_describe(last) : memory_describe(address);
    warp_fault(w, i, lane, cudaErrorIllegalAddress, "%s %u bytes at 0x%llx: %s%s", verb, n_bytes,
               static_cast<unsigned long long>(address), where.c_str(), more.c_str());
}

AsyncCopy *warp_new_copy(Warp &w)
{
    if (w.n_copies == w.max_copies) {
        w.max_copies = w.max_copies ? 2 * w.max_copies : 64;
        w.copies = static_cast<AsyncCopy *>(realloc(w.copies, static_cast<size_t>(w.max_copies) * sizeof(AsyncCopy)));
        if (!w.copies) abort();
    }
    return &w.copies[w.n_copies++];
}

u64 warp_clock(Warp &)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<u64>(t.tv_sec) * 1000000000ull + static_cast<u64>(t.tv_nsec);
}

} // namespace vgpu

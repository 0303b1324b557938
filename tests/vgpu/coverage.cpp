/* One line per instruction of a kernel that was launched, in the columns
 *   kernel <tab> PTX line <tab> statement <tab> executed (0 or 1) <tab> source line <tab> text when not executed
 * and one line for a kernel that was not: kernel <tab> - <tab> number of instructions.
 * A process adds what it has executed to what the file says, under a lock, and replaces the file as a whole when that is
 * more: so the file is as long as the kernels are, however many processes there were, and never half written. */
#include "coverage.h"

#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <map>
#include <string>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include "module.h"
#include "settings.h"

namespace vgpu
{
namespace
{

struct Statement {
    std::string line, source, text;
    bool executed = false;
};

struct Gathered {
    std::string size; /* while nobody has launched the kernel */
    std::map<unsigned, Statement> statements;
};

typedef std::map<std::string, Gathered> Coverage;

void profile()
{
    for (Module *m : module_list())
        for (auto &[name, k] : m->kernels)
            if (k->launches)
                fprintf(stderr, "vgpu: %10.3f CPU s %14llu warp instructions %8llu launches  %s\n", k->seconds,
                        static_cast<unsigned long long>(k->instructions), static_cast<unsigned long long>(k->launches),
                        k->program.pretty.c_str());
}

/* What this process has executed. */
Coverage of_this_process()
{
    Coverage all;
    for (Module *m : module_list())
        for (auto &[name, k] : m->kernels) {
            const Program &p = k->program;
            Gathered &kernel = all[name];
            if (!k->launches || p.code.empty()) {
                unsigned n = 0;
                for (const PtxStatement &statement : m->ptx.functions[name].body)
                    n += statement.kind == PtxStatement::INSTRUCTION && statement.text[0] != '.';
                kernel.size = std::to_string(n);
                continue;
            }
            /* A statement of a function that is called twice is there twice: executed once is executed. */
            for (size_t pc = 0; pc + 1 < p.code.size(); ++pc) {
                const ProgramText &t = p.texts[p.code[pc].text];
                auto [at, is_new] = kernel.statements.insert({t.id, {}});
                Statement &s = at->second;
                if (is_new) s = {std::to_string(t.line), std::to_string(t.source_line), t.text, false};
                s.executed = s.executed || p.executed[pc];
            }
        }
    return all;
}

/* The next column of a line; advances past it. */
std::string column(const char **at)
{
    const char *begin = *at;
    while (**at != '\t' && **at != '\n' && **at != '\0') ++*at;
    std::string text(begin, *at);
    if (**at == '\t') ++*at;
    return text;
}

Coverage read_file(int fd)
{
    std::string bytes;
    char part[1 << 16];
    for (ssize_t n; (n = read(fd, part, sizeof part)) > 0;) bytes.append(part, static_cast<size_t>(n));
    Coverage all;
    for (const char *at = bytes.c_str(); *at != '\0'; at += *at == '\n') {
        Gathered &kernel = all[column(&at)];
        std::string line = column(&at), number = column(&at);
        if (line == "-") {
            kernel.size = number;
            continue;
        }
        Statement &s = kernel.statements[static_cast<unsigned>(atoi(number.c_str()))];
        s.line = line;
        s.executed = column(&at) == "1";
        s.source = column(&at);
        s.text = column(&at);
    }
    return all;
}

/* Adds `more` to `all`; whether that was anything new. */
bool merge(Coverage &all, const Coverage &more)
{
    bool is_new = false;
    for (auto &[name, kernel] : more) {
        auto [at, absent] = all.insert({name, kernel});
        is_new = is_new || absent;
        for (auto &[id, statement] : kernel.statements) {
            auto [there, first] = at->second.statements.insert({id, statement});
            is_new = is_new || first || (statement.executed && !there->second.executed);
            there->second.executed = there->second.executed || statement.executed;
        }
    }
    return is_new;
}

std::string text_of(const Coverage &all)
{
    std::string out;
    for (auto &[name, kernel] : all) {
        if (kernel.statements.empty()) out += name + "\t-\t" + kernel.size + "\n";
        for (auto &[id, s] : kernel.statements)
            out += name + "\t" + s.line + "\t" + std::to_string(id) + "\t" + (s.executed ? "1" : "0") + "\t" + s.source +
                   "\t" + (s.executed ? "" : s.text) + "\n";
    }
    return out;
}

/* The file of that name, locked: whoever waited for the lock may hold one that was replaced meanwhile, and asks again. */
int open_locked(const char *path)
{
    for (;;) {
        struct stat mine, there;
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (fd < 0 || flock(fd, LOCK_EX) != 0) return fd;
        if (fstat(fd, &mine) == 0 && stat(path, &there) == 0 && mine.st_ino == there.st_ino && mine.st_dev == there.st_dev)
            return fd;
        close(fd);
    }
}

bool replace(const char *path, const std::string &text)
{
    const std::string next = std::string(path) + ".next"; /* one process at a time is here */
    FILE *f = fopen(next.c_str(), "we");
    if (!f) return false;
    bool ok = fwrite(text.data(), 1, text.size(), f) == text.size();
    ok = fclose(f) == 0 && ok;
    return ok && rename(next.c_str(), path) == 0;
}

} // namespace

void coverage_write()
{
    if (settings().profile) profile();
    if (settings().coverage.empty()) return;
    const Coverage mine = of_this_process();
    if (mine.empty()) return;
    const char *path = settings().coverage.c_str();
    int fd = open_locked(path);
    if (fd < 0) {
        perror((std::string("vgpu: ") + path).c_str());
        return;
    }
    Coverage all = read_file(fd);
    if (merge(all, mine) && !replace(path, text_of(all))) perror((std::string("vgpu: ") + path).c_str());
    close(fd);
}

} // namespace vgpu

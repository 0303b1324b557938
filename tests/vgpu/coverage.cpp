/* One line per instruction of a kernel that this process has launched, in the columns
 *   kernel <tab> PTX line <tab> statement <tab> executed (0 or 1) <tab> source line <tab> text when not executed
 * and one line for a kernel that it has not: kernel <tab> - <tab> number of instructions.
 * Lines of several processes may follow each other: coverage.sh joins them. */
#include "coverage.h"

#include <cstdio>
#include <map>
#include <string>
#include <sys/file.h>
#include <unistd.h>
#include "module.h"
#include "settings.h"

namespace vgpu
{
namespace
{

void profile()
{
    for (Module *m : module_list())
        for (auto &[name, k] : m->kernels)
            if (k->launches)
                fprintf(stderr, "vgpu: %10.3f CPU s %14llu warp instructions %8llu launches  %s\n", k->seconds,
                        static_cast<unsigned long long>(k->instructions), static_cast<unsigned long long>(k->launches),
                        k->program.pretty.c_str());
}

} // namespace

void coverage_write()
{
    if (settings().profile) profile();
    if (settings().coverage.empty()) return;
    std::string out;
    for (Module *m : module_list())
        for (auto &[name, k] : m->kernels) {
            const Program &p = k->program;
            if (!k->launches || p.code.empty()) {
                unsigned n = 0;
                for (const PtxStatement &statement : m->ptx.functions[name].body)
                    n += statement.kind == PtxStatement::INSTRUCTION && statement.text[0] != '.';
                out += name + "\t-\t" + std::to_string(n) + "\n";
                continue;
            }
            /* A statement of a function that is called twice is there twice: executed once is executed. */
            std::map<unsigned, std::pair<const ProgramText *, bool>> statements;
            for (size_t pc = 0; pc + 1 < p.code.size(); ++pc) {
                const ProgramText &t = p.texts[p.code[pc].text];
                auto &entry = statements.insert({t.id, {&t, false}}).first->second;
                entry.second = entry.second || p.executed[pc];
            }
            for (auto &[id, entry] : statements)
                out += name + "\t" + std::to_string(entry.first->line) + "\t" + std::to_string(id) + "\t" +
                       (entry.second ? "1" : "0") + "\t" + std::to_string(entry.first->source_line) + "\t" +
                       (entry.second ? std::string() : entry.first->text) + "\n";
        }
    if (out.empty()) return;
    FILE *f = fopen(settings().coverage.c_str(), "a");
    if (!f) {
        perror(("vgpu: " + settings().coverage).c_str());
        return;
    }
    flock(fileno(f), LOCK_EX); /* several ranks write to one file */
    fwrite(out.data(), 1, out.size(), f);
    if (fclose(f)) perror(("vgpu: " + settings().coverage).c_str());
}

} // namespace vgpu

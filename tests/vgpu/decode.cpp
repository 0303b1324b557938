/* The order of things: names and their scopes, the statements of a function, what is settled at the end. */
#include "decoder.h"

#include <cstdlib>
#include <cstring>
#include <cxxabi.h>

namespace vgpu
{

namespace
{

enum : u32 { SHARED_GAP = 16 }; /* unused bytes after each shared variable: running past its end is a fault */

} // namespace

void Decoder::decode(const string &kernel)
{
    auto it = module_.functions.find(kernel);
    if (it == module_.functions.end() || !it->second.has_body) throw PtxError(0, "no kernel '" + kernel + "'");
    const PtxFunction &f = it->second;
    p_.name = kernel;
    int status;
    char *pretty = abi::__cxa_demangle(kernel.c_str(), nullptr, nullptr, &status);
    p_.pretty = pretty ? pretty : kernel;
    free(pretty);
    p_.max_threads = f.max_threads;
    scopes_.emplace_back(new Scope);
    for (const PtxVariable &v : module_.variables) {
        if (v.space == PtxSpace::SHARED) continue; /* laid out when met */
        scopes_[0]->names[v.name] = {Name::GLOBAL, 0, 0};
    }
    scopes_.emplace_back(new Scope);
    for (const PtxVariable &v : f.params) {
        u32 align = static_cast<u32>(v.align);
        p_.param_bytes = (p_.param_bytes + align - 1) / align * align;
        scopes_[1]->names[v.name] = {Name::KERNEL_PARAM, static_cast<s32>(p_.param_bytes), 0};
        p_.params.push_back({p_.param_bytes, static_cast<u32>(v.n_bytes)});
        p_.param_bytes += static_cast<u32>(v.n_bytes);
    }
    body(f, true);
    line_ = f.line;
    end_text(f);
    Instr exit = start();
    exit.kind = Kind::EXIT;
    p_.code.push_back(exit);
    for (const Fixup &fix : fixups_)
        p_.code[fix.instr].target = label(fix);
    for (const TableFixup &fix : table_fixups_) {
        vector<s32> table;
        for (const string &name : fix.labels)
            table.push_back(label({fix.instr, name, fix.scopes, fix.line}));
        p_.code[fix.instr].table = static_cast<s32>(p_.tables.size());
        p_.tables.push_back(table);
    }
    /* Dynamic shared memory comes after all static variables. */
    u32 align = dynamic_align_ > 16 ? dynamic_align_ : 16;
    if (!p_.gaps.empty() && p_.shared_bytes)
        p_.shared_bytes = (p_.shared_bytes + align - 1) / align * align, close_gap();
    for (auto [constant, offset] : dynamic_constants_)
        p_.constants[constant].value = p_.shared_bytes + offset;
    p_.executed.assign(p_.code.size(), 0);
    program_place_registers(&p_, registers_);
}

void Decoder::fail(const string &what) const
{
    throw PtxError(line_, what + " (kernel " + p_.pretty + ")");
}

void Decoder::close_gap()
{
    if (shared_end_ < p_.shared_bytes) p_.gaps.emplace_back(shared_end_, p_.shared_bytes);
    shared_end_ = p_.shared_bytes;
}

s32 Decoder::label(const Fixup &fix) const
{
    for (size_t k = fix.scopes.size(); k-- > 0;) {
        auto it = fix.scopes[k]->labels.find(fix.name);
        if (it != fix.scopes[k]->labels.end()) return it->second;
    }
    throw PtxError(fix.line, "no label '" + fix.name + "' (kernel " + p_.pretty + ")");
}

s32 Decoder::new_register(unsigned width)
{
    /* Predicates: one word for all lanes. Lanes of 8-bit registers take two bytes. */
    u32 bytes = width == 0 ? 4 : width * LANES;
    if (width) p_.register_bytes = (p_.register_bytes + 63) / 64 * 64;
    s32 offset = static_cast<s32>(p_.register_bytes);
    p_.register_bytes += bytes;
    return offset;
}

const Name *Decoder::find_name(const string &name)
{
    for (size_t k = scopes_.size(); k-- > 0;) {
        auto it = scopes_[k]->names.find(name);
        if (it != scopes_[k]->names.end()) return &it->second;
    }
    for (const PtxVariable &v : module_.variables)
        if (v.name == name && v.space == PtxSpace::SHARED) return place_shared(v, scopes_[0].get());
    return nullptr;
}

const Name *Decoder::place_shared(const PtxVariable &v, Scope *scope)
{
    if (v.unsized) {
        if (v.align > dynamic_align_) dynamic_align_ = static_cast<u32>(v.align);
        return &(scope->names[v.name] = {Name::DYNAMIC_SHARED, 0, 0});
    }
    u32 align = v.align > 16 ? static_cast<u32>(v.align) : 16;
    p_.shared_bytes = (p_.shared_bytes + align - 1) / align * align;
    close_gap();
    s32 offset = static_cast<s32>(p_.shared_bytes);
    u32 declared = static_cast<u32>(v.align);
    p_.shared_declared = (p_.shared_declared + declared - 1) / declared * declared + static_cast<u32>(v.n_bytes);
    shared_end_ = p_.shared_bytes + static_cast<u32>(v.n_bytes);
    p_.shared_bytes = shared_end_ + SHARED_GAP;
    close_gap();
    return &(scope->names[v.name] = {Name::SHARED, offset, 0});
}

s32 Decoder::place_local(u64 bytes, u64 align)
{
    u32 a = align > 16 ? static_cast<u32>(align) : 16;
    p_.local_bytes = (p_.local_bytes + a - 1) / a * a;
    s32 offset = static_cast<s32>(p_.local_bytes);
    p_.local_bytes += static_cast<u32>(bytes);
    return offset;
}

void Decoder::declare(const string &text)
{
    Scope *scope = scopes_.back().get();
    if (text.compare(0, 4, ".reg") == 0) {
        string rest = ptx_trim(text.substr(4));
        size_t space = rest.find_first_of(" \t");
        string type = rest.substr(1, space - 1);
        unsigned width = type == "pred" ? 0 : ptx_type_bytes(type);
        if (type != "pred" && (!width || width > 8)) fail("registers of type '" + type + "'");
        if (width == 1) width = 2;
        for (const string &name : ptx_split(rest.substr(space))) {
            size_t less = name.find('<');
            if (less == string::npos) {
                scope->names[name] = {Name::REGISTER, NO_REGISTER, static_cast<u8>(width)};
                continue;
            }
            int n = atoi(name.c_str() + less + 1);
            for (int k = 0; k < n; ++k) /* placed when first met: most of a long list may be unused */
                scope->names[name.substr(0, less) + std::to_string(k)] = {Name::REGISTER, NO_REGISTER,
                                                                          static_cast<u8>(width)};
        }
        return;
    }
    for (const PtxVariable &v : ptx_parse_variables(text, line_)) {
        switch (v.space) {
        case PtxSpace::SHARED:
            place_shared(v, scope);
            break;
        case PtxSpace::LOCAL:
        case PtxSpace::PARAM:
            scope->names[v.name] = {Name::LOCAL, place_local(v.n_bytes, v.align), 0};
            break;
        default:
            fail("variable '" + v.name + "' in a function");
        }
    }
}

/* The statements of a function, in scopes that the caller has opened. */
void Decoder::body(const PtxFunction &f, bool is_kernel)
{
    size_t base = scopes_.size();
    if (++depth_ > 32) fail("calls more than 32 deep: recursion is not supported");
    if (!is_kernel) function_scopes_.push_back(scopes_.back());
    for (const PtxStatement &s : f.body) {
        line_ = s.line;
        switch (s.kind) {
        case PtxStatement::OPEN:
            scopes_.emplace_back(new Scope);
            break;
        case PtxStatement::CLOSE:
            if (scopes_.size() <= base) fail("a brace too many");
            scopes_.pop_back();
            break;
        case PtxStatement::LABEL:
            scopes_.back()->labels[s.text] = static_cast<s32>(p_.code.size());
            last_label_ = s.text;
            break;
        case PtxStatement::INSTRUCTION:
            if (s.text[0] == '.')
                directive(s.text);
            else
                instruction(s);
        }
    }
    if (!is_kernel) {
        function_scopes_.back()->labels["%return"] = static_cast<s32>(p_.code.size());
        function_scopes_.pop_back();
    }
    --depth_;
}

void Decoder::directive(const string &text)
{
    if (text.compare(0, 4, ".reg") == 0 || text.compare(0, 6, ".local") == 0 || text.compare(0, 7, ".shared") == 0 ||
        text.compare(0, 6, ".param") == 0 || text.compare(0, 7, ".extern") == 0)
        declare(text);
    else if (text.compare(0, 14, ".branchtargets") == 0)
        branch_targets_[last_label_] = ptx_split(text.substr(14));
    else if (text.compare(0, 7, ".pragma") != 0 && text.compare(0, 14, ".callprototype") != 0)
        fail("directive '" + text + "'");
}

Instr Decoder::start() const
{
    Instr i;
    for (s32 &r : i.r)
        r = NO_REGISTER;
    memset(i.width, 0, sizeof i.width);
    i.line = line_;
    i.text = static_cast<u32>(p_.texts.size() - 1);
    return i;
}

void Decoder::end_text(const PtxFunction &f)
{
    p_.texts.push_back({"end of the kernel", f.line, f.body.empty() ? 0 : f.body.back().id, 0, 0});
}

void Decoder::instruction(const PtxStatement &s)
{
    p_.texts.push_back({s.text, s.line, s.id, s.source_file, s.source_line});
    Instr i = start();
    string text = s.text;
    if (text[0] == '@') {
        size_t space = text.find_first_of(" \t");
        i.guard_negated = text[1] == '!';
        string name = text.substr(i.guard_negated ? 2 : 1, space - (i.guard_negated ? 2 : 1));
        const Name *n = find_name(name);
        if (!n || n->kind != Name::REGISTER || n->width) fail("guard '" + name + "' is no predicate");
        i.guard = register_of(const_cast<Name *>(n));
        text = ptx_trim(text.substr(space));
    }
    size_t space = text.find_first_of(" \t{");
    Opcode op = split_opcode(text.substr(0, space));
    vector<string> o = space == string::npos ? vector<string>() : ptx_split(ptx_trim(text.substr(space)));
    one(i, op, o, s);
}

void Decoder::finish(Instr *i, const string &key)
{
    i->op = op_find(key);
    if (!i->op) fail("opcode '" + key + "' is not known, in '" + p_.texts.back().text + "'");
    p_.code.push_back(*i);
}

/* Sets rounding and flushing around the operation when the opcode asks for other than the default. */
void Decoder::finish_float(Instr *i, const Opcode &op, const string &key)
{
    i->mode = 0;
    if (op.has("rm")) i->mode |= 1;
    if (op.has("rp")) i->mode |= 2;
    if (op.has("rz")) i->mode |= 3;
    if (op.has("ftz")) i->mode |= MODE_FTZ;
    if (op.has("sat")) i->mode |= MODE_SAT;
    if (!i->mode) {
        finish(i, key);
        return;
    }
    i->inner = op_find(key);
    if (!i->inner) fail("opcode '" + key + "' is not known, in '" + p_.texts.back().text + "'");
    finish(i, "with_modes");
}

void Decoder::want(const vector<string> &o, size_t least, size_t most) const
{
    if (o.size() < least || o.size() > most) fail("wrong number of operands in '" + p_.texts.back().text + "'");
}

void program_decode(Program *program, const PtxModule &module, const std::string &kernel)
{
    Decoder(program, module).decode(kernel);
}

} // namespace vgpu

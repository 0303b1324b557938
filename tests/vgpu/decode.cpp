/* PTX statements to instructions: names become offsets, opcodes become functions, calls are replaced by the body of the
 * function that is called. */
#include <cstdlib>
#include <cstring>
#include <cxxabi.h>
#include <memory>
#include <unordered_map>
#include "program.h"

namespace vgpu
{
namespace
{

using std::string;
using std::vector;

enum : u32 { SHARED_GAP = 16 }; /* unused bytes after each shared variable: running past its end is a fault */

struct Name {
    enum Kind { REGISTER, KERNEL_PARAM, LOCAL, SHARED, DYNAMIC_SHARED, GLOBAL } kind;
    s32 offset; /* register, or address in its space */
    u8 width;   /* register: bytes per lane, 0 predicate */
};

struct Scope {
    std::unordered_map<string, Name> names;
    std::unordered_map<string, s32> labels;
};

struct Opcode {
    string base;
    vector<string> mods;
    bool has(const char *m) const
    {
        for (const string &x : mods)
            if (x == m) return true;
        return false;
    }
    const string &last() const
    {
        return mods.empty() ? base : mods.back();
    }
    /* Modifiers that are types, in order. */
    vector<string> types() const
    {
        vector<string> out;
        for (const string &m : mods)
            if (ptx_type_bytes(m) || m == "pred") out.push_back(m);
        return out;
    }
    string type() const
    {
        vector<string> t = types();
        return t.empty() ? string() : t.back();
    }
    /* First of a list of modifiers that is there. */
    string one_of(std::initializer_list<const char *> list) const
    {
        for (const char *x : list)
            if (has(x)) return x;
        return string();
    }
};

string bits_type(unsigned bytes)
{
    return "b" + std::to_string(bytes * 8);
}

string unsigned_type(unsigned bytes)
{
    return "u" + std::to_string(bytes * 8);
}

class Decoder
{
  public:
    Decoder(Program *out, const PtxModule &module) : p_(*out), module_(module)
    {
    }

    void decode(const string &kernel)
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

  private:
    struct Fixup {
        size_t instr;
        string name;
        vector<std::shared_ptr<Scope>> scopes;
        unsigned line;
    };
    struct TableFixup {
        size_t instr;
        vector<string> labels;
        vector<std::shared_ptr<Scope>> scopes;
        unsigned line;
    };

    Program &p_;
    const PtxModule &module_;
    vector<std::shared_ptr<Scope>> scopes_;
    vector<std::shared_ptr<Scope>> function_scopes_; /* of the functions being inlined: ret goes to their end */
    vector<Fixup> fixups_;
    vector<TableFixup> table_fixups_;
    vector<ProgramRegister> registers_; /* those of .reg that are used */
    std::unordered_map<string, s32> constants_;
    std::unordered_map<string, s32> specials_;
    vector<std::pair<size_t, u64>> dynamic_constants_;
    std::unordered_map<string, vector<string>> branch_targets_;
    string last_label_;
    u32 dynamic_align_ = 16, shared_end_ = 0;
    unsigned line_ = 0;
    int depth_ = 0;

    [[noreturn]] void fail(const string &what) const
    {
        throw PtxError(line_, what + " (kernel " + p_.pretty + ")");
    }

    void close_gap()
    {
        if (shared_end_ < p_.shared_bytes) p_.gaps.emplace_back(shared_end_, p_.shared_bytes);
        shared_end_ = p_.shared_bytes;
    }

    s32 label(const Fixup &fix) const
    {
        for (size_t k = fix.scopes.size(); k-- > 0;) {
            auto it = fix.scopes[k]->labels.find(fix.name);
            if (it != fix.scopes[k]->labels.end()) return it->second;
        }
        throw PtxError(fix.line, "no label '" + fix.name + "' (kernel " + p_.pretty + ")");
    }

    s32 new_register(unsigned width)
    {
        /* Predicates: one word for all lanes. Lanes of 8-bit registers take two bytes. */
        u32 bytes = width == 0 ? 4 : width * LANES;
        if (width) p_.register_bytes = (p_.register_bytes + 63) / 64 * 64;
        s32 offset = static_cast<s32>(p_.register_bytes);
        p_.register_bytes += bytes;
        return offset;
    }

    const Name *find_name(const string &name)
    {
        for (size_t k = scopes_.size(); k-- > 0;) {
            auto it = scopes_[k]->names.find(name);
            if (it != scopes_[k]->names.end()) return &it->second;
        }
        for (const PtxVariable &v : module_.variables)
            if (v.name == name && v.space == PtxSpace::SHARED) return place_shared(v, scopes_[0].get());
        return nullptr;
    }

    const Name *place_shared(const PtxVariable &v, Scope *scope)
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

    s32 place_local(u64 bytes, u64 align)
    {
        u32 a = align > 16 ? static_cast<u32>(align) : 16;
        p_.local_bytes = (p_.local_bytes + a - 1) / a * a;
        s32 offset = static_cast<s32>(p_.local_bytes);
        p_.local_bytes += static_cast<u32>(bytes);
        return offset;
    }

    void declare(const string &text)
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
    void body(const PtxFunction &f, bool is_kernel)
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

    void directive(const string &text)
    {
        if (text.compare(0, 4, ".reg") == 0 || text.compare(0, 6, ".local") == 0 ||
            text.compare(0, 7, ".shared") == 0 || text.compare(0, 6, ".param") == 0 ||
            text.compare(0, 7, ".extern") == 0)
            declare(text);
        else if (text.compare(0, 14, ".branchtargets") == 0)
            branch_targets_[last_label_] = ptx_split(text.substr(14));
        else if (text.compare(0, 7, ".pragma") != 0 && text.compare(0, 14, ".callprototype") != 0)
            fail("directive '" + text + "'");
    }

    Instr start() const
    {
        Instr i;
        for (s32 &r : i.r)
            r = NO_REGISTER;
        memset(i.width, 0, sizeof i.width);
        i.line = line_;
        i.text = static_cast<u32>(p_.texts.size() - 1);
        return i;
    }

    void end_text(const PtxFunction &f)
    {
        p_.texts.push_back({"end of the kernel", f.line, f.body.empty() ? 0 : f.body.back().id, 0, 0});
    }

    static Opcode split_opcode(const string &text)
    {
        Opcode op;
        string part;
        size_t i = 0;
        auto flush = [&] {
            if (op.base.empty())
                op.base = part;
            else
                op.mods.push_back(part);
            part.clear();
        };
        for (; i < text.size(); ++i) {
            if (text[i] == '.')
                flush();
            else
                part += text[i];
        }
        flush();
        /* .shared::cta is .shared, .L2::128B and its like are hints */
        vector<string> kept;
        for (string &m : op.mods) {
            if (m == "shared::cta") m = "shared";
            if (m == "param::entry" || m == "param::func") m = "param";
            if (m.find("::") == string::npos) kept.push_back(m);
        }
        op.mods = kept;
        return op;
    }

    /* ---- operands ---- */

    s32 constant(u64 value, unsigned width, const string &symbol = string())
    {
        if (width < 8) value &= (1ull << (8 * width)) - 1;
        string key = std::to_string(width) + ":" + std::to_string(value) + ":" + symbol;
        auto it = constants_.find(key);
        if (it != constants_.end()) return it->second;
        s32 offset = new_register(width);
        p_.constants.push_back({offset, static_cast<u8>(width), value, symbol});
        constants_[key] = offset;
        return offset;
    }

    s32 special(const string &name, unsigned width)
    {
        static const std::unordered_map<string, Special> known = {
            {"%tid.x", Special::TID_X},
            {"%tid.y", Special::TID_Y},
            {"%tid.z", Special::TID_Z},
            {"%ntid.x", Special::NTID_X},
            {"%ntid.y", Special::NTID_Y},
            {"%ntid.z", Special::NTID_Z},
            {"%nctaid.x", Special::NCTAID_X},
            {"%nctaid.y", Special::NCTAID_Y},
            {"%nctaid.z", Special::NCTAID_Z},
            {"%ctaid.x", Special::CTAID_X},
            {"%ctaid.y", Special::CTAID_Y},
            {"%ctaid.z", Special::CTAID_Z},
            {"%laneid", Special::LANEID},
            {"%warpid", Special::WARPID},
            {"%nwarpid", Special::NWARPID},
            {"%lanemask_eq", Special::LANEMASK_EQ},
            {"%lanemask_lt", Special::LANEMASK_LT},
            {"%lanemask_le", Special::LANEMASK_LE},
            {"%lanemask_gt", Special::LANEMASK_GT},
            {"%lanemask_ge", Special::LANEMASK_GE},
            {"%smid", Special::SMID},
            {"%nsmid", Special::NSMID},
            {"%gridid", Special::GRIDID},
            {"%dynamic_smem_size", Special::DYNAMIC_SMEM},
            {"%total_smem_size", Special::TOTAL_SMEM},
        };
        auto it = known.find(name);
        if (it == known.end()) fail("special register or undeclared name '" + name + "'");
        string key = name + std::to_string(width);
        auto seen = specials_.find(key);
        if (seen != specials_.end()) return seen->second;
        s32 offset = new_register(width);
        p_.specials.push_back({offset, static_cast<u8>(width), it->second});
        specials_[key] = offset;
        return offset;
    }

    s32 symbol_address(const string &name, const Name &n, s64 plus, unsigned width)
    {
        switch (n.kind) {
        case Name::GLOBAL:
            return constant(static_cast<u64>(plus), width, name);
        case Name::DYNAMIC_SHARED: {
            /* not shared with other constants: its value is known at the end */
            s32 offset = new_register(width);
            p_.constants.push_back({offset, static_cast<u8>(width), 0, string()});
            dynamic_constants_.emplace_back(p_.constants.size() - 1, static_cast<u64>(plus));
            return offset;
        }
        default:
            return constant(static_cast<u64>(n.offset + plus), width);
        }
    }

    bool literal(const string &s, unsigned width, u64 *value) const
    {
        if (s.size() > 2 && s[0] == '0' && (s[1] == 'f' || s[1] == 'F')) {
            u32 bits = static_cast<u32>(strtoul(s.c_str() + 2, nullptr, 16));
            float f;
            memcpy(&f, &bits, 4);
            double d = static_cast<double>(f);
            if (width == 8)
                memcpy(value, &d, 8);
            else
                *value = bits;
            return true;
        }
        if (s.size() > 2 && s[0] == '0' && (s[1] == 'd' || s[1] == 'D')) {
            *value = strtoull(s.c_str() + 2, nullptr, 16);
            double d;
            memcpy(&d, value, 8);
            float f = static_cast<float>(d);
            u32 bits;
            memcpy(&bits, &f, 4);
            if (width == 4) *value = bits;
            return true;
        }
        if (s == "WARP_SZ") {
            *value = LANES;
            return true;
        }
        bool minus = s[0] == '-';
        if (!isdigit(static_cast<unsigned char>(s[minus ? 1 : 0]))) return false;
        if (s.find('.') != string::npos) {
            double d = strtod(s.c_str(), nullptr);
            float f = static_cast<float>(d);
            *value = 0;
            if (width == 8)
                memcpy(value, &d, 8);
            else
                memcpy(value, &f, 4);
            return true;
        }
        char *end;
        u64 v = strtoull(s.c_str() + (minus ? 1 : 0), &end, 0);
        if (*end && strcmp(end, "U")) fail("operand '" + s + "'");
        *value = minus ? 0 - v : v;
        return true;
    }

    s32 register_of(Name *n)
    {
        if (n->offset == NO_REGISTER) {
            n->offset = new_register(n->width);
            registers_.push_back({n->offset, n->width});
        }
        return n->offset;
    }

    /* A source of at least `width` bytes per lane (0: a predicate) into operand k. */
    void source(Instr *i, int k, const string &text, unsigned width)
    {
        i->width[k] = static_cast<u8>(width);
        const Name *n = find_name(text);
        if (n && n->kind == Name::REGISTER) {
            if ((width == 0) != (n->width == 0))
                fail("operand '" + text + "' is " + (width ? "a predicate" : "no predicate"));
            if (n->width < width) fail("register '" + text + "' is narrower than the operand");
            i->r[k] = register_of(const_cast<Name *>(n));
            i->width[k] = n->width;
            return;
        }
        if (width == 0) {
            if (text == "1" || text == "0" || text == "-1") {
                i->r[k] =
                    constant(text == "0" ? 0 : ALL_LANES, 4); /* all lanes' words are equal: the first is the mask */
                return;
            }
            fail("operand '" + text + "' is no predicate");
        }
        u64 value;
        if (!text.empty() && (isdigit(static_cast<unsigned char>(text[0])) || text[0] == '-' || text == "WARP_SZ")) {
            if (!literal(text, width, &value)) fail("operand '" + text + "'");
            i->r[k] = constant(value, width);
            return;
        }
        if (n) {
            i->r[k] = symbol_address(text, *n, 0, width);
            return;
        }
        size_t plus = text.find('+');
        if (plus != string::npos && (n = find_name(ptx_trim(text.substr(0, plus)))) != nullptr &&
            n->kind != Name::REGISTER) {
            i->r[k] =
                symbol_address(ptx_trim(text.substr(0, plus)), *n, strtoll(text.c_str() + plus + 1, nullptr, 0), width);
            return;
        }
        if (!text.empty() && text[0] == '%') {
            i->r[k] = special(text, width);
            return;
        }
        fail("operand '" + text + "'");
    }

    void destination(Instr *i, int k, const string &text, unsigned width)
    {
        i->width[k] = static_cast<u8>(width);
        if (text == "_") return;
        const Name *n = find_name(text);
        if (!n || n->kind != Name::REGISTER) fail("destination '" + text + "' is no register");
        if ((width == 0) != (n->width == 0)) fail("destination '" + text + "' has the wrong kind of register");
        if (n->width < width) fail("destination '" + text + "' is narrower than the result");
        i->r[k] = register_of(const_cast<Name *>(n));
        i->width[k] = n->width;
        i->written = static_cast<u16>(i->written | 1u << k);
    }

    /* [base], [base+offset], [number]; *space is what the name says, -1 for a register. */
    void address(Instr *i, int k, const string &text, s64 *offset, int *kind)
    {
        if (text.size() < 2 || text[0] != '[') fail("address '" + text + "'");
        string inner = ptx_trim(text.substr(1, text.rfind(']') - 1));
        *kind = -1;
        size_t sign = inner.find_first_of("+-", 1);
        string base = ptx_trim(inner.substr(0, sign));
        s64 plus = 0;
        if (sign != string::npos) {
            string number = ptx_trim(inner.substr(sign + (inner[sign] == '+' ? 1 : 0)));
            char *end;
            plus = strtoll(number.c_str(), &end, 0);
            if (*end) fail("address '" + text + "'");
        }
        const Name *n = find_name(base);
        if (!n) {
            u64 value;
            if (!literal(base, 8, &value)) fail("address '" + text + "'");
            *offset = static_cast<s64>(value) + plus;
            return;
        }
        if (n->kind == Name::REGISTER) {
            if (n->width < 4) fail("address '" + text + "' in a register of 16 bits");
            i->r[k] = register_of(const_cast<Name *>(n));
            i->width[k] = n->width;
            *offset = plus;
            return;
        }
        *kind = n->kind;
        if (n->kind == Name::GLOBAL || n->kind == Name::DYNAMIC_SHARED) {
            i->r[k] = symbol_address(base, *n, plus, 8);
            i->width[k] = 8;
            *offset = 0;
            return;
        }
        *offset = n->offset + plus;
    }

    static vector<string> elements(const string &text)
    {
        if (text.empty() || text[0] != '{') return {text};
        return ptx_split(text.substr(1, text.rfind('}') - 1));
    }

    void finish(Instr *i, const string &key)
    {
        i->op = op_find(key);
        if (!i->op) fail("opcode '" + key + "' is not known, in '" + p_.texts.back().text + "'");
        p_.code.push_back(*i);
    }

    /* Sets rounding and flushing around the operation when the opcode asks for other than the default. */
    void finish_float(Instr *i, const Opcode &op, const string &key)
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

    /* ---- instructions ---- */

    void instruction(const PtxStatement &s)
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

    void want(const vector<string> &o, size_t least, size_t most) const
    {
        if (o.size() < least || o.size() > most) fail("wrong number of operands in '" + p_.texts.back().text + "'");
    }

    void one(Instr &i, const Opcode &op, vector<string> &o, const PtxStatement &s)
    {
        const string &b = op.base;
        const string type = op.type();
        const unsigned bytes = ptx_type_bytes(type);
        if (b == "bra") return branch(i, o);
        if (b == "brx") return branch_table(i, o);
        if (b == "ret" || b == "exit") return leave(i, b == "ret");
        if (b == "call") return call(i, o, s);
        if (b == "trap" || b == "brkpt") return finish(&i, "trap");
        if (b == "bar" || b == "barrier") return barrier(i, op, o);
        if (b == "membar" || b == "fence" || b == "nanosleep" || b == "prefetch" || b == "prefetchu" ||
            b == "discard" || b == "applypriority" || b == "pmevent" || b == "griddepcontrol")
            return nothing(i);
        if (b == "mov") return move(i, op, o);
        if (b == "ld" || b == "ldu") return load(i, op, o);
        if (b == "st") return store(i, op, o);
        if (b == "atom" || b == "red") return atomic(i, op, o);
        if (b == "cp") return async(i, op, o);
        if (b == "ldmatrix") return load_matrix(i, op, o);
        if (b == "mma") return multiply(i, op, o);
        if (b == "shfl") return shuffle(i, op, o);
        if (b == "vote" || b == "match" || b == "redux" || b == "activemask") return collective(i, op, o);
        if (b == "setp" || b == "set") return compare(i, op, o);
        if (b == "selp") {
            want(o, 4, 4);
            destination(&i, 0, o[0], bytes);
            source(&i, 1, o[1], bytes);
            source(&i, 2, o[2], bytes);
            source(&i, 3, o[3], 0);
            return finish(&i, "selp." + bits_type(bytes));
        }
        if (b == "slct") {
            want(o, 4, 4);
            vector<string> t = op.types();
            if (t.size() != 2) fail("slct wants two types");
            unsigned n = ptx_type_bytes(t[0]);
            for (int k = 0; k < 3; ++k)
                k ? source(&i, k, o[static_cast<size_t>(k)], n) : destination(&i, 0, o[0], n);
            source(&i, 3, o[3], 4);
            return finish(&i, "slct." + bits_type(n) + "." + t[1]);
        }
        if (b == "cvt") return convert(i, op, o);
        if (b == "cvta") {
            want(o, 2, 2);
            return address_space(i, op, o);
        }
        if (b == "isspacep") return is_space(i, op, o);
        if (b == "testp") {
            static const char *kinds[] = {"finite", "infinite", "number", "notanumber", "normal", "subnormal"};
            want(o, 2, 2);
            for (int k = 0; k < 6; ++k)
                if (op.has(kinds[k])) i.imm = k;
            destination(&i, 0, o[0], 0);
            source(&i, 1, o[1], bytes);
            return finish(&i, "testp." + type);
        }
        if (type == "pred" && (b == "and" || b == "or" || b == "xor" || b == "not")) return predicate_logic(i, op, o);
        if (b == "lop3" || b == "shf" || b == "prmt" || b == "bfe" || b == "bfi" || b == "shl" || b == "shr" ||
            b == "popc" || b == "clz" || b == "bfind" || b == "brev" || b == "and" || b == "or" || b == "xor" ||
            b == "not" || b == "cnot" || b == "dp4a")
            return bits(i, op, o);
        static const char *arithmetic[] = {"add",  "sub",   "mul", "mad",  "fma",  "div",  "rem",   "abs",     "neg",
                                           "min",  "max",   "sad", "addc", "subc", "madc", "mul24", "mad24",   "rcp",
                                           "sqrt", "rsqrt", "sin", "cos",  "lg2",  "ex2",  "tanh",  "copysign"};
        bool known = false;
        for (const char *name : arithmetic)
            known = known || b == name;
        if (!known || bytes == 0) fail("opcode '" + b + "' is not known, in '" + p_.texts.back().text + "'");
        if (type[0] == 'f' || type[0] == 'b') return floating(i, op, o);
        return integer(i, op, o);
    }

    void nothing(Instr &i)
    {
        i.kind = Kind::NOTHING;
        p_.code.push_back(i);
    }

    void branch(Instr &i, const vector<string> &o)
    {
        want(o, 1, 1);
        i.kind = Kind::BRANCH;
        fixups_.push_back({p_.code.size(), o[0], scopes_, line_});
        p_.code.push_back(i);
    }

    void branch_table(Instr &i, const vector<string> &o)
    {
        want(o, 2, 2);
        i.kind = Kind::BRANCH_TABLE;
        source(&i, 0, o[0], 4);
        auto it = branch_targets_.find(o[1]);
        if (it == branch_targets_.end()) fail("no .branchtargets '" + o[1] + "'");
        table_fixups_.push_back({p_.code.size(), it->second, scopes_, line_});
        p_.code.push_back(i);
    }

    void leave(Instr &i, bool is_return)
    {
        if (is_return && !function_scopes_.empty()) {
            i.kind = Kind::BRANCH;
            fixups_.push_back({p_.code.size(), "%return", {function_scopes_.back()}, line_});
        } else {
            i.kind = Kind::EXIT;
        }
        p_.code.push_back(i);
    }

    /* call [(result),] name [, (arguments)]: the callee's parameters are the caller's variables of the same place. */
    void call(Instr &i, vector<string> &o, const PtxStatement &s)
    {
        vector<string> results, arguments;
        size_t k = 0;
        auto list = [](const string &t) { return ptx_split(t.substr(1, t.rfind(')') - 1)); };
        if (k < o.size() && o[k][0] == '(') results = list(o[k++]);
        if (k >= o.size()) fail("call without a name");
        string name = o[k++];
        if (k < o.size() && o[k][0] == '(') arguments = list(o[k++]);
        auto it = module_.functions.find(name);
        if (it == module_.functions.end())
            fail("call of '" + name + "': no such function (calls through pointers are not supported)");
        const PtxFunction &f = it->second;
        auto variable = [&](const string &v) {
            const Name *n = find_name(v);
            if (!n || n->kind != Name::LOCAL) fail("call argument '" + v + "' is no .param variable");
            return *n;
        };
        if (!f.has_body) {
            external_call(i, name, results, arguments, variable);
            return;
        }
        if (arguments.size() != f.params.size() || results.size() != f.results.size())
            fail("call of '" + name + "' with other arguments than it takes");
        auto inner = std::make_shared<Scope>();
        for (size_t a = 0; a < arguments.size(); ++a)
            inner->names[f.params[a].name] = variable(arguments[a]);
        for (size_t a = 0; a < results.size(); ++a)
            inner->names[f.results[a].name] = variable(results[a]);
        /* A guarded call is jumped over by the lanes whose guard is false. */
        auto after = std::make_shared<Scope>();
        if (i.guard != NO_REGISTER) {
            i.kind = Kind::BRANCH;
            i.guard_negated = !i.guard_negated;
            fixups_.push_back({p_.code.size(), "%after", {after}, line_});
            p_.code.push_back(i);
        } else {
            nothing(i);
        }
        vector<std::shared_ptr<Scope>> saved = scopes_;
        scopes_ = {scopes_[0], inner};
        body(f, false);
        scopes_ = saved;
        after->labels["%after"] = static_cast<s32>(p_.code.size());
        line_ = s.line;
    }

    template <class F>
    void external_call(Instr &i, const string &name, const vector<string> &results, const vector<string> &arguments,
                       F variable)
    {
        if (name == "vprintf" && arguments.size() == 2) {
            i.imm = variable(arguments[0]).offset;
            i.imm2 = variable(arguments[1]).offset;
            i.target = results.empty() ? -1 : variable(results[0]).offset;
            return finish(&i, "vprintf");
        }
        if (name == "__assertfail" && arguments.size() == 5) {
            i.imm = variable(arguments[0]).offset;
            i.imm2 = variable(arguments[1]).offset;
            i.table = variable(arguments[2]).offset;
            i.n = 2; /* an assertion, not a print */
            return finish(&i, "vprintf");
        }
        fail("call of the external function '" + name + "'");
    }

    void barrier(Instr &i, const Opcode &op, const vector<string> &o)
    {
        if (op.has("warp")) {
            i.kind = Kind::COLLECTIVE;
            want(o, 1, 1);
            source(&i, MASK_OPERAND, o[0], 4);
            return finish(&i, "nothing");
        }
        i.kind = Kind::BARRIER;
        i.imm = op.has("arrive") ? 1 : op.has("red") ? 2 : 0;
        if (i.imm == 1) fail("bar.arrive is not supported");
        if (i.imm == 2) {
            /* d, barrier [, threads], predicate */
            want(o, 3, 4);
            i.imm2 = op.has("popc") ? 0 : op.has("and") ? 1 : 2;
            if (i.imm2 == 0)
                destination(&i, 2, o[0], 4);
            else
                destination(&i, 2, o[0], 0);
            source(&i, 0, o[1], 4);
            if (o.size() == 4) source(&i, 1, o[2], 4);
            string p = o.back();
            if (p[0] == '!') i.n = 2, p = ptx_trim(p.substr(1));
            source(&i, 3, p, 0);
        } else {
            want(o, 0, 2);
            source(&i, 0, o.empty() ? "0" : o[0], 4);
            if (o.size() == 2) source(&i, 1, o[1], 4);
        }
        p_.code.push_back(i);
    }

    void move(Instr &i, const Opcode &op, const vector<string> &o)
    {
        want(o, 2, 2);
        string type = op.type();
        unsigned bytes = ptx_type_bytes(type);
        if (type == "pred") return predicate_logic(i, op, o);
        if (!bytes || bytes > 8) fail("mov of type '" + type + "'");
        vector<string> to = elements(o[0]), from = elements(o[1]);
        if (from.size() > 1) {
            unsigned part = bytes / static_cast<unsigned>(from.size());
            destination(&i, 0, o[0], bytes);
            for (size_t k = 0; k < from.size(); ++k)
                source(&i, static_cast<int>(1 + k), from[k], part);
            return finish(&i, "pack." + bits_type(bytes) + "." + std::to_string(from.size()));
        }
        if (to.size() > 1) {
            unsigned part = bytes / static_cast<unsigned>(to.size());
            for (size_t k = 0; k < to.size(); ++k)
                destination(&i, static_cast<int>(k), to[k], part);
            source(&i, static_cast<int>(to.size()), from[0], bytes);
            return finish(&i, "unpack." + bits_type(bytes) + "." + std::to_string(to.size()));
        }
        destination(&i, 0, to[0], bytes);
        if (from[0] == "%clock" || from[0] == "%clock_hi" || from[0] == "%globaltimer_lo")
            return finish(&i, "clock.b32");
        if (from[0] == "%clock64" || from[0] == "%globaltimer") return finish(&i, "clock.b64");
        source(&i, 1, from[0], bytes);
        finish(&i, "mov." + bits_type(bytes));
    }

    void predicate_logic(Instr &i, const Opcode &op, const vector<string> &o)
    {
        size_t n = op.base == "not" || op.base == "mov" ? 2 : 3;
        want(o, n, n);
        destination(&i, 0, o[0], 0);
        for (size_t k = 1; k < n; ++k) {
            string t = o[k];
            if (t[0] == '!') i.imm |= 1 << k, t = ptx_trim(t.substr(1));
            source(&i, static_cast<int>(k), t, 0);
        }
        finish(&i, op.base + ".pred");
    }

    /* Name of the space an access goes to, from the opcode and from what a name in the address is. */
    string space(const Opcode &op, int kind) const
    {
        string s = op.one_of({"global", "shared", "local", "const", "param"});
        if (kind == Name::LOCAL) return "local";
        if (kind == Name::KERNEL_PARAM) return "param";
        if (kind == Name::SHARED || kind == Name::DYNAMIC_SHARED) return "shared";
        if (s == "const") return "global";
        return s.empty() ? kind == Name::GLOBAL ? "global" : "generic" : s;
    }

    void load(Instr &i, const Opcode &op, const vector<string> &o)
    {
        want(o, 2, 3); /* a cache policy may follow */
        string type = op.type();
        unsigned bytes = ptx_type_bytes(type);
        vector<string> to = elements(o[0]);
        if (!bytes || bytes > 8 || to.size() > 4) fail("load '" + p_.texts.back().text + "'");
        i.n = static_cast<u8>(to.size());
        for (size_t k = 0; k < to.size(); ++k)
            destination(&i, static_cast<int>(k), to[k], bytes == 1 ? 2 : bytes);
        int kind;
        address(&i, static_cast<int>(to.size()), o[1], &i.imm, &kind);
        string where = space(op, kind);
        if (where == "param" && kind != Name::KERNEL_PARAM && !function_scopes_.empty()) where = "local";
        if (where == "global" || where == "generic") i.table = static_cast<s32>(p_.n_ranges++);
        string element = type[0] == 's' && bytes < 8 ? type : unsigned_type(bytes);
        finish(&i, "ld." + where + "." + element + (to.size() > 1 ? ".v" + std::to_string(to.size()) : ""));
    }

    void store(Instr &i, const Opcode &op, const vector<string> &o)
    {
        want(o, 2, 3);
        unsigned bytes = ptx_type_bytes(op.type());
        vector<string> from = elements(o[1]);
        if (!bytes || bytes > 8 || from.size() > 4) fail("store '" + p_.texts.back().text + "'");
        i.n = static_cast<u8>(from.size());
        int kind;
        address(&i, 0, o[0], &i.imm, &kind);
        for (size_t k = 0; k < from.size(); ++k)
            source(&i, static_cast<int>(1 + k), from[k], bytes == 1 ? 2 : bytes);
        string where = space(op, kind);
        if (where == "param") where = "local"; /* arguments of a call */
        if (op.has("const")) fail("store to constant memory");
        if (where == "global" || where == "generic") i.table = static_cast<s32>(p_.n_ranges++);
        finish(&i, "st." + where + "." + unsigned_type(bytes) +
                       (from.size() > 1 ? ".v" + std::to_string(from.size()) : ""));
    }

    void atomic(Instr &i, const Opcode &op, vector<string> o)
    {
        string what = op.one_of({"add", "min", "max", "and", "or", "xor", "inc", "dec", "exch", "cas"});
        string type = op.type();
        unsigned bytes = ptx_type_bytes(type);
        if (what.empty() || !bytes) fail("atomic '" + p_.texts.back().text + "'");
        if (op.base == "red") o.insert(o.begin(), "_");
        want(o, what == "cas" ? 4 : 3, 5);
        destination(&i, 0, o[0], bytes);
        int kind;
        address(&i, 1, o[1], &i.imm, &kind);
        source(&i, 2, o[2], bytes);
        if (what == "cas")
            source(&i, 3, o[3], bytes);
        else
            i.r[3] = i.r[2];
        string where = space(op, kind);
        i.imm2 = where == "shared";
        i.table = static_cast<s32>(p_.n_ranges++);
        if (what == "and" || what == "or" || what == "xor" || what == "exch" || what == "cas") type = bits_type(bytes);
        finish(&i, "atom." + what + "." + type);
    }

    void async(Instr &i, const Opcode &op, const vector<string> &o)
    {
        if (!op.has("async") || op.has("bulk") || op.has("mbarrier"))
            fail("opcode is not known, in '" + p_.texts.back().text + "'");
        if (op.has("commit_group")) return finish(&i, "cp.async.commit");
        if (op.has("wait_all")) {
            i.imm = -1;
            return finish(&i, "cp.async.wait");
        }
        if (op.has("wait_group")) {
            want(o, 1, 1);
            u64 n;
            if (!literal(o[0], 4, &n)) fail("cp.async.wait_group wants a number");
            i.imm = static_cast<s64>(n);
            return finish(&i, "cp.async.wait");
        }
        want(o, 3, 5);
        int kind;
        address(&i, 0, o[0], &i.imm, &kind);
        address(&i, 1, o[1], &i.imm2, &kind);
        if (i.r[1] == NO_REGISTER) fail("cp.async from a constant address");
        if (i.width[1] != 8) fail("cp.async wants a source address of 64 bits");
        u64 n;
        if (!literal(o[2], 4, &n)) fail("cp.async wants its size as a number");
        if (o.size() >= 4) {
            const Name *name = find_name(o[3]);
            if (name && name->kind == Name::REGISTER && name->width == 0)
                fail("cp.async with ignore-src is not supported");
            if (!name || name->width != 8 || o.size() == 5) source(&i, 2, o[3], 4); /* else: a cache policy */
        }
        i.table = static_cast<s32>(p_.n_ranges++);
        finish(&i, "cp.async." + std::to_string(n));
    }

    void load_matrix(Instr &i, const Opcode &op, const vector<string> &o)
    {
        want(o, 2, 2);
        vector<string> to = elements(o[0]);
        i.kind = Kind::COLLECTIVE;
        i.n = static_cast<u8>(to.size());
        if (!op.has("m8n8") || op.type() != "b16") fail("ldmatrix '" + p_.texts.back().text + "'");
        for (size_t k = 0; k < to.size(); ++k)
            destination(&i, static_cast<int>(k), to[k], 4);
        int kind;
        address(&i, i.n, o[1], &i.imm, &kind);
        finish(&i, op.has("trans") ? "ldmatrix.trans" : "ldmatrix");
    }

    void multiply(Instr &i, const Opcode &op, const vector<string> &o)
    {
        want(o, 4, 4);
        string shape = op.one_of({"m16n8k16", "m16n8k8"});
        vector<string> t = op.types();
        if (shape.empty() || t.size() != 4 || t[0] != "f32" || t[3] != "f32" || t[1] != t[2])
            fail("mma '" + p_.texts.back().text + "'");
        i.kind = Kind::COLLECTIVE;
        int k = 0;
        for (size_t part = 0; part < 4; ++part)
            for (const string &e : elements(o[part])) {
                if (k >= MASK_OPERAND) fail("mma with too many registers");
                if (part == 0)
                    destination(&i, k++, e, 4);
                else
                    source(&i, k++, e, 4);
            }
        int want_registers = shape == "m16n8k16" ? 14 : t[1] == "tf32" ? 14 : 11;
        if (k != want_registers) fail("mma with " + std::to_string(k) + " registers");
        finish(&i, "mma." + shape + "." + t[1]);
    }

    void shuffle(Instr &i, const Opcode &op, const vector<string> &o)
    {
        want(o, 5, 5);
        static const char *modes[] = {"up", "down", "bfly", "idx"};
        if (!op.has("sync")) fail("shfl without .sync");
        for (int k = 0; k < 4; ++k)
            if (op.has(modes[k])) i.imm = k;
        i.kind = Kind::COLLECTIVE;
        size_t bar = o[0].find('|');
        destination(&i, 0, ptx_trim(o[0].substr(0, bar)), 4);
        if (bar != string::npos) destination(&i, 4, ptx_trim(o[0].substr(bar + 1)), 0);
        for (int k = 1; k < 4; ++k)
            source(&i, k, o[static_cast<size_t>(k)], 4);
        source(&i, MASK_OPERAND, o[4], 4);
        finish(&i, "shfl");
    }

    void collective(Instr &i, const Opcode &op, const vector<string> &o)
    {
        if (op.base == "activemask") {
            want(o, 1, 1);
            destination(&i, 0, o[0], 4);
            return finish(&i, "activemask");
        }
        if (!op.has("sync")) fail("'" + op.base + "' without .sync");
        want(o, 3, 3);
        i.kind = Kind::COLLECTIVE;
        source(&i, MASK_OPERAND, o[2], 4);
        if (op.base == "vote") {
            bool ballot = op.has("ballot");
            i.imm = op.has("all") ? 0 : op.has("any") ? 1 : op.has("uni") ? 2 : 3;
            destination(&i, 0, o[0], ballot ? 4 : 0);
            string p = o[1];
            if (p[0] == '!') i.imm |= 16, p = ptx_trim(p.substr(1));
            source(&i, 1, p, 0);
            return finish(&i, "vote");
        }
        unsigned bytes = ptx_type_bytes(op.type());
        size_t bar = o[0].find('|');
        destination(&i, 0, ptx_trim(o[0].substr(0, bar)), 4);
        if (bar != string::npos) destination(&i, 4, ptx_trim(o[0].substr(bar + 1)), 0);
        source(&i, 1, o[1], bytes);
        if (op.base == "match")
            return finish(&i, string("match.") + (op.has("all") ? "all." : "any.") + bits_type(bytes));
        string what = op.one_of({"add", "min", "max", "and", "or", "xor"});
        finish(&i, "redux." + what + "." + op.type());
    }

    void compare(Instr &i, const Opcode &op, const vector<string> &o)
    {
        static const char *orders[] = {"eq", "ne",  "lt",  "le",  "gt",  "ge",  "lo",  "ls",  "hi",
                                       "hs", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"};
        string order;
        for (const char *c : orders)
            if (op.has(c)) order = c;
        string type = op.type();
        unsigned bytes = ptx_type_bytes(type);
        want(o, 3, 4);
        if (op.base == "set") {
            vector<string> t = op.types();
            if (t.size() != 2) fail("set wants two types");
            bool pair = type == "bf16x2" || type == "f16x2";
            if (t[0] == "f32")
                i.imm = 32;
            else if (t[0] == "u32" || t[0] == "s32" || t[0] == "b32")
                i.imm = 16;
            else if (pair && t[0] == type)
                i.imm = 64;
            else
                fail("set to '" + t[0] + "'");
            destination(&i, 0, o[0], 4);
        } else {
            size_t bar = o[0].find('|');
            destination(&i, 0, ptx_trim(o[0].substr(0, bar)), 0);
            if (bar != string::npos) destination(&i, 3, ptx_trim(o[0].substr(bar + 1)), 0);
        }
        source(&i, 1, o[1], bytes);
        source(&i, 2, o[2], bytes);
        if (o.size() == 4) {
            i.imm |= op.has("and") ? 1 : op.has("or") ? 2 : 3;
            string c = o[3];
            if (c[0] == '!') i.imm |= 4, c = ptx_trim(c.substr(1));
            source(&i, 4, c, 0);
        }
        if (type[0] == 'b' && type != "bf16" && type != "bf16x2") type = unsigned_type(bytes);
        finish_float(&i, op, "setp." + order + "." + type);
    }

    void convert(Instr &i, const Opcode &op, const vector<string> &o)
    {
        vector<string> t = op.types();
        if (t.size() != 2) fail("cvt wants two types");
        want(o, 2, 3);
        unsigned to = ptx_type_bytes(t[0]), from = ptx_type_bytes(t[1]);
        destination(&i, 0, o[0], to == 1 ? 2 : to);
        source(&i, 1, o[1], from == 1 ? 2 : from);
        if (o.size() == 3) source(&i, 2, o[2], from);
        bool whole = op.has("rni") || op.has("rmi") || op.has("rpi") || op.has("rzi");
        if (op.has("rm") || op.has("rmi")) i.mode = 1;
        if (op.has("rp") || op.has("rpi")) i.mode = 2;
        if (op.has("rz") || op.has("rzi")) i.mode = 3;
        bool from_integer = t[1][0] == 's' || t[1][0] == 'u' || (t[1][0] == 'b' && t[1][1] != 'f');
        bool to_integer = t[0][0] == 's' || t[0][0] == 'u' || (t[0][0] == 'b' && t[0][1] != 'f');
        i.imm = (whole ? 1 : 0) | (op.has("sat") || op.has("satfinite") ? 16 : 0) | (op.has("relu") ? 32 : 0) |
                (op.has("ftz") ? 64 : 0);
        for (string &x : t)
            if (x[0] == 'b' && x[1] != 'f') x = "u" + x.substr(1);
        string key = "cvt." + t[0] + "." + t[1];
        /* Integers to floats round by the processor's mode; the others do it themselves. */
        if (from_integer && !to_integer && (i.mode & MODE_ROUND)) {
            if (op.has("sat")) i.mode |= MODE_SAT;
            i.inner = op_find(key);
            if (!i.inner) fail("opcode '" + key + "' is not known");
            return finish(&i, "with_modes");
        }
        if (from_integer && !to_integer && op.has("sat")) i.mode |= MODE_SAT;
        finish(&i, key);
    }

    /* Global and constant addresses are generic as they are; shared, local and parameter ones get their window. */
    void address_space(Instr &i, const Opcode &op, const vector<string> &o)
    {
        unsigned bytes = ptx_type_bytes(op.type());
        string s = op.one_of({"global", "shared", "local", "const", "param"});
        u64 window = s == "shared"  ? u64{WINDOW_SHARED}
                     : s == "local" ? u64{WINDOW_LOCAL}
                     : s == "param" ? u64{WINDOW_PARAM}
                                    : 0;
        destination(&i, 0, o[0], bytes);
        if (window == 0) {
            source(&i, 1, o[1], bytes);
            return finish(&i, "mov." + bits_type(bytes));
        }
        if (bytes != 8) fail("cvta of 32 bits");
        source(&i, 1, o[1], 8);
        i.r[2] = constant(window, 8);
        finish(&i, op.has("to") ? "sub.u64" : "add.u64");
    }

    void is_space(Instr &i, const Opcode &op, const vector<string> &o)
    {
        want(o, 2, 2);
        string s = op.one_of({"global", "shared", "local", "const", "param"});
        u64 window = s == "shared" ? 1 : s == "local" ? 2 : s == "param" ? 3 : 0;
        Instr shift = i;
        string text = o[1];
        s32 top = new_register(8);
        registers_.push_back({top, 8});
        shift.r[0] = top;
        shift.width[0] = 8;
        shift.written = 1;
        source(&shift, 1, text, 8);
        shift.r[2] = constant(WINDOW_BITS, 4);
        finish(&shift, "shr.u64");
        destination(&i, 0, o[0], 0);
        i.r[1] = top;
        i.r[2] = constant(window, 8);
        finish(&i, "setp.eq.u64");
    }

    void bits(Instr &i, const Opcode &op, const vector<string> &o)
    {
        const string &b = op.base;
        string type = op.type();
        unsigned bytes = ptx_type_bytes(type);
        bool counts = b == "popc" || b == "clz" || b == "bfind";
        size_t n = b == "bfi"                                               ? 5
                   : b == "lop3"                                            ? 5
                   : b == "shf" || b == "prmt" || b == "bfe" || b == "dp4a" ? 4
                   : counts || b == "brev" || b == "not" || b == "cnot"     ? 2
                                                                            : 3;
        want(o, n, n);
        destination(&i, 0, o[0], counts ? 4 : bytes);
        for (size_t k = 1; k < n; ++k) {
            unsigned width = bytes;
            if ((b == "shl" || b == "shr") && k == 2) width = 4;
            if (b == "bfe" && k >= 2) width = 4;
            if (b == "bfi" && k >= 3) width = 4;
            if (b == "lop3" && k == 4) {
                u64 table;
                if (!literal(o[4], 4, &table)) fail("lop3 wants its table as a number");
                i.imm = static_cast<s64>(table);
                continue;
            }
            source(&i, static_cast<int>(k), o[k], width);
        }
        string key = b + ".";
        if (b == "bfind" && op.has("shiftamt")) key += "shiftamt.";
        if (b == "shf") key += string(op.has("l") ? "l." : "r.") + (op.has("clamp") ? "clamp." : "wrap.");
        if (b == "dp4a")
            key += op.types()[0] + "." + op.types()[1];
        else if (b == "shr")
            key += type[0] == 'b' ? unsigned_type(bytes) : type;
        else if (b == "bfe" || b == "bfind")
            key += type;
        else
            key += bits_type(bytes);
        string mode = b == "prmt" ? op.one_of({"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"}) : string();
        finish(&i, mode.empty() ? key : key + "." + mode);
    }

    void integer(Instr &i, const Opcode &op, const vector<string> &o)
    {
        const string &b = op.base;
        string type = op.type();
        unsigned bytes = ptx_type_bytes(type), result = op.has("wide") ? 2 * bytes : bytes;
        if (b == "abs" || b == "neg") {
            want(o, 2, 2);
            destination(&i, 0, o[0], bytes);
            source(&i, 1, o[1], bytes);
            return finish(&i, b + "." + type);
        }
        bool with_carry = op.has("cc") || b == "addc" || b == "subc" || b == "madc";
        bool three = b == "mad" || b == "madc" || b == "mad24" || b == "sad";
        want(o, three ? 4 : 3, three ? 4 : 3);
        destination(&i, 0, o[0], result);
        source(&i, 1, o[1], bytes);
        source(&i, 2, o[2], bytes);
        if (three) source(&i, 3, o[3], result);
        if (with_carry) {
            bool reads = b.back() == 'c';
            i.imm = (reads ? 1 : 0) | (op.has("cc") ? 2 : 0) | (b.compare(0, 3, "sub") == 0 ? 4 : 0) |
                    (op.has("hi") ? 8 : 0) | (type[0] == 's' ? 16 : 0);
            return finish(&i, string(three ? "madc." : "addc.") + std::to_string(bytes * 8));
        }
        string half = op.has("wide") ? "wide." : op.has("hi") ? "hi." : op.has("lo") ? "lo." : "";
        if (op.has("sat")) half = "sat.";
        finish(&i, b + "." + half + type);
    }

    void floating(Instr &i, const Opcode &op, const vector<string> &o)
    {
        const string &b = op.base;
        string type = op.type();
        unsigned bytes = ptx_type_bytes(type);
        bool three = b == "fma" || b == "mad";
        bool single = b == "neg" || b == "abs" || b == "rcp" || b == "sqrt" || b == "rsqrt" || b == "sin" ||
                      b == "cos" || b == "lg2" || b == "ex2" || b == "tanh";
        size_t n = three ? 4 : single ? 2 : 3;
        want(o, n, n);
        destination(&i, 0, o[0], bytes);
        for (size_t k = 1; k < n; ++k)
            source(&i, static_cast<int>(k), o[k], bytes);
        string name = three ? "fma." : b + ".";
        if (op.has("NaN")) name += "NaN.";
        if (op.has("relu")) name += "relu.";
        bool half = type == "bf16" || type == "f16" || type == "bf16x2" || type == "f16x2";
        if (half) { /* each operation rounds once to nearest; .ftz matters for f16 only */
            if (op.has("rz") || op.has("rm") || op.has("rp")) fail("rounding mode of '" + p_.texts.back().text + "'");
            if (op.has("ftz") && (type == "f16" || type == "f16x2") && b != "ex2")
                fail("'.ftz' of '" + p_.texts.back().text + "'");
            if (op.has("sat")) name += "sat.";
            return finish(&i, name + type);
        }
        if ((b == "neg" || b == "abs") && op.has("ftz")) return finish(&i, b + ".ftz." + type);
        finish_float(&i, op, name + type);
    }
};

} // namespace

void program_decode(Program *program, const PtxModule &module, const std::string &kernel)
{
    Decoder(program, module).decode(kernel);
}

} // namespace vgpu

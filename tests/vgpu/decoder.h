/* From PTX statements to instructions: names become offsets, opcodes become functions, calls are replaced by the body
 * of the function that is called. decode.cpp has the order of things, decode_operands.cpp the operands, the other
 * decode_*.cpp the opcodes. */
#ifndef VGPU_DECODER_H
#define VGPU_DECODER_H

#include <memory>
#include <unordered_map>
#include "program.h"

namespace vgpu
{

using std::string;
using std::vector;

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

inline string bits_type(unsigned bytes)
{
    return "b" + std::to_string(bytes * 8);
}

inline string unsigned_type(unsigned bytes)
{
    return "u" + std::to_string(bytes * 8);
}

class Decoder
{
  public:
    Decoder(Program *out, const PtxModule &module) : p_(*out), module_(module)
    {
    }
    void decode(const string &kernel);

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

    [[noreturn]] void fail(const string &what) const;
    void close_gap();
    s32 label(const Fixup &fix) const;
    s32 new_register(unsigned width);
    const Name *find_name(const string &name);
    const Name *place_shared(const PtxVariable &v, Scope *scope);
    s32 place_local(u64 bytes, u64 align);
    void declare(const string &text);
    void body(const PtxFunction &f, bool is_kernel);
    void directive(const string &text);
    Instr start() const;
    void end_text(const PtxFunction &f);
    void instruction(const PtxStatement &s);
    void finish(Instr *i, const string &key);
    void finish_float(Instr *i, const Opcode &op, const string &key);
    void want(const vector<string> &o, size_t least, size_t most) const;

    static Opcode split_opcode(const string &text);
    s32 constant(u64 value, unsigned width, const string &symbol = string());
    s32 special(const string &name, unsigned width);
    s32 symbol_address(const string &name, const Name &n, s64 plus, unsigned width);
    bool literal(const string &s, unsigned width, u64 *value) const;
    s32 register_of(Name *n);
    void source(Instr *i, int k, const string &text, unsigned width);
    void destination(Instr *i, int k, const string &text, unsigned width);
    void address(Instr *i, int k, const string &text, s64 *offset, int *kind);
    static vector<string> elements(const string &text);

    const Name &argument(const string &name);
    void nothing(Instr &i);
    void branch(Instr &i, const vector<string> &o);
    void branch_table(Instr &i, const vector<string> &o);
    void leave(Instr &i, bool is_return);
    void call(Instr &i, vector<string> &o, const PtxStatement &s);
    void external_call(Instr &i, const string &name, const vector<string> &results, const vector<string> &arguments);
    void barrier(Instr &i, const Opcode &op, const vector<string> &o);
    void shuffle(Instr &i, const Opcode &op, const vector<string> &o);
    void collective(Instr &i, const Opcode &op, const vector<string> &o);

    string space(const Opcode &op, int kind) const;
    void load(Instr &i, const Opcode &op, const vector<string> &o);
    void store(Instr &i, const Opcode &op, const vector<string> &o);
    void atomic(Instr &i, const Opcode &op, vector<string> o);
    void async(Instr &i, const Opcode &op, const vector<string> &o);
    void load_matrix(Instr &i, const Opcode &op, const vector<string> &o);
    void address_space(Instr &i, const Opcode &op, const vector<string> &o);
    void is_space(Instr &i, const Opcode &op, const vector<string> &o);

    void one(Instr &i, const Opcode &op, vector<string> &o, const PtxStatement &s);
    void move(Instr &i, const Opcode &op, const vector<string> &o);
    void predicate_logic(Instr &i, const Opcode &op, const vector<string> &o);
    void multiply(Instr &i, const Opcode &op, const vector<string> &o);
    void compare(Instr &i, const Opcode &op, const vector<string> &o);
    void convert(Instr &i, const Opcode &op, const vector<string> &o);
    void bits(Instr &i, const Opcode &op, const vector<string> &o);
    void integer(Instr &i, const Opcode &op, const vector<string> &o);
    void floating(Instr &i, const Opcode &op, const vector<string> &o);
};

} // namespace vgpu
#endif

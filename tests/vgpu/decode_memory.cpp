/* Opcodes that touch memory. */
#include "decoder.h"

namespace vgpu
{

/* Name of the space an access goes to, from the opcode and from what a name in the address is. */
string Decoder::space(const Opcode &op, int kind) const
{
    string s = op.one_of({"global", "shared", "local", "const", "param"});
    if (kind == Name::LOCAL) return "local";
    if (kind == Name::KERNEL_PARAM) return "param";
    if (kind == Name::SHARED || kind == Name::DYNAMIC_SHARED) return "shared";
    if (s == "const") return "global";
    return s.empty() ? kind == Name::GLOBAL ? "global" : "generic" : s;
}

void Decoder::load(Instr &i, const Opcode &op, const vector<string> &o)
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

void Decoder::store(Instr &i, const Opcode &op, const vector<string> &o)
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
    finish(&i,
           "st." + where + "." + unsigned_type(bytes) + (from.size() > 1 ? ".v" + std::to_string(from.size()) : ""));
}

void Decoder::atomic(Instr &i, const Opcode &op, vector<string> o)
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

void Decoder::async(Instr &i, const Opcode &op, const vector<string> &o)
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
        if (name && name->kind == Name::REGISTER && name->width == 0) fail("cp.async with ignore-src is not supported");
        if (!name || name->width != 8 || o.size() == 5) source(&i, 2, o[3], 4); /* else: a cache policy */
    }
    i.table = static_cast<s32>(p_.n_ranges++);
    finish(&i, "cp.async." + std::to_string(n));
}

void Decoder::load_matrix(Instr &i, const Opcode &op, const vector<string> &o)
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

/* Global and constant addresses are generic as they are; shared, local and parameter ones get their window. */
void Decoder::address_space(Instr &i, const Opcode &op, const vector<string> &o)
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

void Decoder::is_space(Instr &i, const Opcode &op, const vector<string> &o)
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

} // namespace vgpu

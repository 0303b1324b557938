/* Which opcode is decoded where, and those that compute. */
#include "decoder.h"

namespace vgpu
{

void Decoder::one(Instr &i, const Opcode &op, vector<string> &o, const PtxStatement &s)
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
    if (b == "membar" || b == "fence" || b == "nanosleep" || b == "prefetch" || b == "prefetchu" || b == "discard" ||
        b == "applypriority" || b == "pmevent" || b == "griddepcontrol")
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

void Decoder::move(Instr &i, const Opcode &op, const vector<string> &o)
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
    if (from[0] == "%clock" || from[0] == "%clock_hi" || from[0] == "%globaltimer_lo") return finish(&i, "clock.b32");
    if (from[0] == "%clock64" || from[0] == "%globaltimer") return finish(&i, "clock.b64");
    source(&i, 1, from[0], bytes);
    finish(&i, "mov." + bits_type(bytes));
}

void Decoder::predicate_logic(Instr &i, const Opcode &op, const vector<string> &o)
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

void Decoder::multiply(Instr &i, const Opcode &op, const vector<string> &o)
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

void Decoder::compare(Instr &i, const Opcode &op, const vector<string> &o)
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

void Decoder::convert(Instr &i, const Opcode &op, const vector<string> &o)
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

void Decoder::bits(Instr &i, const Opcode &op, const vector<string> &o)
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

void Decoder::integer(Instr &i, const Opcode &op, const vector<string> &o)
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

void Decoder::floating(Instr &i, const Opcode &op, const vector<string> &o)
{
    const string &b = op.base;
    string type = op.type();
    unsigned bytes = ptx_type_bytes(type);
    bool three = b == "fma" || b == "mad";
    bool single = b == "neg" || b == "abs" || b == "rcp" || b == "sqrt" || b == "rsqrt" || b == "sin" || b == "cos" ||
                  b == "lg2" || b == "ex2" || b == "tanh";
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

} // namespace vgpu

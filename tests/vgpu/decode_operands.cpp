/* Operands: registers, numbers, special registers, addresses. */
#include "decoder.h"

#include <cstdlib>
#include <cstring>

namespace vgpu
{

Opcode Decoder::split_opcode(const string &text)
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

s32 Decoder::constant(u64 value, unsigned width, const string &symbol)
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

s32 Decoder::special(const string &name, unsigned width)
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

s32 Decoder::symbol_address(const string &name, const Name &n, s64 plus, unsigned width)
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

bool Decoder::literal(const string &s, unsigned width, u64 *value) const
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

s32 Decoder::register_of(Name *n)
{
    if (n->offset == NO_REGISTER) {
        n->offset = new_register(n->width);
        registers_.push_back({n->offset, n->width});
    }
    return n->offset;
}

/* A source of at least `width` bytes per lane (0: a predicate) into operand k. */
void Decoder::source(Instr *i, int k, const string &text, unsigned width)
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
            i->r[k] = constant(text == "0" ? 0 : ALL_LANES, 4); /* all lanes' words are equal: the first is the mask */
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

void Decoder::destination(Instr *i, int k, const string &text, unsigned width)
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
void Decoder::address(Instr *i, int k, const string &text, s64 *offset, int *kind)
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

vector<string> Decoder::elements(const string &text)
{
    if (text.empty() || text[0] != '{') return {text};
    return ptx_split(text.substr(1, text.rfind('}') - 1));
}

} // namespace vgpu

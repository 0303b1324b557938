/* Opcodes that move control or need other lanes: branches, calls, barriers, shuffles. */
#include "decoder.h"

namespace vgpu
{

void Decoder::nothing(Instr &i)
{
    i.kind = Kind::NOTHING;
    p_.code.push_back(i);
}

void Decoder::branch(Instr &i, const vector<string> &o)
{
    want(o, 1, 1);
    i.kind = Kind::BRANCH;
    fixups_.push_back({p_.code.size(), o[0], scopes_, line_});
    p_.code.push_back(i);
}

void Decoder::branch_table(Instr &i, const vector<string> &o)
{
    want(o, 2, 2);
    i.kind = Kind::BRANCH_TABLE;
    source(&i, 0, o[0], 4);
    auto it = branch_targets_.find(o[1]);
    if (it == branch_targets_.end()) fail("no .branchtargets '" + o[1] + "'");
    table_fixups_.push_back({p_.code.size(), it->second, scopes_, line_});
    p_.code.push_back(i);
}

void Decoder::leave(Instr &i, bool is_return)
{
    if (is_return && !function_scopes_.empty()) {
        i.kind = Kind::BRANCH;
        fixups_.push_back({p_.code.size(), "%return", {function_scopes_.back()}, line_});
    } else {
        i.kind = Kind::EXIT;
    }
    p_.code.push_back(i);
}

/* A .param variable of the caller. */
const Name &Decoder::argument(const string &name)
{
    const Name *n = find_name(name);
    if (!n || n->kind != Name::LOCAL) fail("call argument '" + name + "' is no .param variable");
    return *n;
}

/* call [(result),] name [, (arguments)]: the callee's parameters are the caller's variables of the same place. */
void Decoder::call(Instr &i, vector<string> &o, const PtxStatement &s)
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
    if (!f.has_body) {
        external_call(i, name, results, arguments);
        return;
    }
    if (arguments.size() != f.params.size() || results.size() != f.results.size())
        fail("call of '" + name + "' with other arguments than it takes");
    auto inner = std::make_shared<Scope>();
    for (size_t a = 0; a < arguments.size(); ++a)
        inner->names[f.params[a].name] = argument(arguments[a]);
    for (size_t a = 0; a < results.size(); ++a)
        inner->names[f.results[a].name] = argument(results[a]);
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

void Decoder::external_call(Instr &i, const string &name, const vector<string> &results,
                            const vector<string> &arguments)
{
    if (name == "vprintf" && arguments.size() == 2) {
        i.imm = argument(arguments[0]).offset;
        i.imm2 = argument(arguments[1]).offset;
        i.target = results.empty() ? -1 : argument(results[0]).offset;
        return finish(&i, "vprintf");
    }
    if (name == "__assertfail" && arguments.size() == 5) {
        i.imm = argument(arguments[0]).offset;
        i.imm2 = argument(arguments[1]).offset;
        i.table = argument(arguments[2]).offset;
        i.n = 2; /* an assertion, not a print */
        return finish(&i, "vprintf");
    }
    fail("call of the external function '" + name + "'");
}

void Decoder::barrier(Instr &i, const Opcode &op, const vector<string> &o)
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

void Decoder::shuffle(Instr &i, const Opcode &op, const vector<string> &o)
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

void Decoder::collective(Instr &i, const Opcode &op, const vector<string> &o)
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
    if (op.base == "match") return finish(&i, string("match.") + (op.has("all") ? "all." : "any.") + bits_type(bytes));
    string what = op.one_of({"add", "min", "max", "and", "or", "xor"});
    finish(&i, "redux." + what + "." + op.type());
}

} // namespace vgpu

#include "ptx.h"

#include <cctype>
#include <cstdlib>
#include <cstring>

namespace vgpu
{

std::string ptx_trim(const std::string &s)
{
    size_t a = s.find_first_not_of(" \t\r\n"), b = s.find_last_not_of(" \t\r\n");
    return a == std::string::npos ? std::string() : s.substr(a, b - a + 1);
}

std::vector<std::string> ptx_split(const std::string &s)
{
    std::vector<std::string> parts;
    std::string part;
    int depth = 0;
    for (char c : s) {
        if (c == '[' || c == '{' || c == '(') ++depth;
        if (c == ']' || c == '}' || c == ')') --depth;
        if (c == ',' && depth == 0) {
            parts.push_back(ptx_trim(part));
            part.clear();
        } else {
            part += c;
        }
    }
    part = ptx_trim(part);
    if (!part.empty() || !parts.empty()) parts.push_back(part);
    return parts;
}

unsigned ptx_type_bytes(const std::string &type)
{
    static const std::map<std::string, unsigned> bytes = {
        {"b8", 1},   {"u8", 1},  {"s8", 1},  {"b16", 2}, {"u16", 2}, {"s16", 2},   {"f16", 2},
        {"bf16", 2}, {"b32", 4}, {"u32", 4}, {"s32", 4}, {"f32", 4}, {"f16x2", 4}, {"bf16x2", 4},
        {"tf32", 4}, {"b64", 8}, {"u64", 8}, {"s64", 8}, {"f64", 8}, {"b128", 16},
    };
    auto it = bytes.find(type);
    return it == bytes.end() ? 0 : it->second;
}

namespace
{

/* Comments become blanks; lines stay where they are. */
std::string without_comments(const std::string &text)
{
    std::string out = text;
    for (size_t i = 0; i + 1 < out.size(); ++i) {
        if (out[i] == '"') {
            i = out.find('"', i + 1);
            if (i == std::string::npos) break;
        } else if (out[i] == '/' && out[i + 1] == '/') {
            while (i < out.size() && out[i] != '\n')
                out[i++] = ' ';
        } else if (out[i] == '/' && out[i + 1] == '*') {
            size_t end = out.find("*/", i);
            if (end == std::string::npos) end = out.size();
            for (; i < end + 2 && i < out.size(); ++i)
                if (out[i] != '\n') out[i] = ' ';
        }
    }
    return out;
}

std::vector<std::string> words(const std::string &s)
{
    std::vector<std::string> out;
    std::string word;
    for (char c : s + " ") {
        if (isspace(static_cast<unsigned char>(c))) {
            if (!word.empty()) out.push_back(word);
            word.clear();
        } else {
            word += c;
        }
    }
    return out;
}

uint64_t number(const std::string &s, unsigned line)
{
    char *end;
    uint64_t v =
        s.size() && s[0] == '-' ? static_cast<uint64_t>(strtoll(s.c_str(), &end, 0)) : strtoull(s.c_str(), &end, 0);
    if (s.empty() || (*end && strcmp(end, "U"))) throw PtxError(line, "not a number: '" + s + "'");
    return v;
}

/* Element of an initialiser list: a number, 0fXXXXXXXX, 0dXXXXXXXXXXXXXXXX, a symbol, generic(symbol), symbol+offset.
 */
void put_element(PtxVariable &v, uint64_t at, unsigned bytes, std::string element, unsigned line)
{
    uint64_t value = 0;
    if (element.compare(0, 8, "generic(") == 0) element = element.substr(8, element.find(')') - 8);
    if (element.size() > 2 && element[0] == '0' && strchr("fFdD", element[1])) {
        value = strtoull(element.c_str() + 2, nullptr, 16);
    } else if (isdigit(static_cast<unsigned char>(element[0])) || element[0] == '-') {
        value = number(element, line);
    } else {
        size_t plus = element.find('+');
        if (plus != std::string::npos) value = number(ptx_trim(element.substr(plus + 1)), line);
        v.addresses.emplace_back(at, ptx_trim(element.substr(0, plus)));
    }
    if (at + bytes > v.n_bytes) throw PtxError(line, "more initial values than '" + v.name + "' has room for");
    memcpy(v.initial.data() + at, &value, bytes > 8 ? 8 : bytes);
}

class Parser
{
  public:
    explicit Parser(const std::string &text) : text_(without_comments(text))
    {
    }

    PtxModule parse()
    {
        for (;;) {
            skip_blank();
            if (at_ >= text_.size()) return std::move(module_);
            if (starts(".version") || starts(".target") || starts(".address_size")) {
                to_line_end();
            } else if (starts(".file")) {
                file();
            } else if (starts(".section")) {
                to(text_.find('{', at_));
                braces();
            } else if (starts(".pragma")) {
                until(";");
                ++at_;
            } else {
                declaration();
            }
        }
    }

  private:
    std::string text_;
    size_t at_ = 0;
    unsigned line_ = 1, ids_ = 0;
    PtxModule module_;

    bool starts(const char *word) const
    {
        return text_.compare(at_, strlen(word), word) == 0;
    }
    void to(size_t end)
    {
        if (end == std::string::npos) throw PtxError(line_, "ends too early");
        for (; at_ < end; ++at_)
            if (text_[at_] == '\n') ++line_;
    }
    void skip_blank()
    {
        size_t end = text_.find_first_not_of(" \t\r\n", at_);
        to(end == std::string::npos ? text_.size() : end);
    }
    std::string until(const char *stops)
    {
        size_t begin = at_, end = text_.find_first_of(stops, at_);
        to(end);
        return text_.substr(begin, end - begin);
    }
    std::string to_line_end()
    {
        size_t begin = at_, end = text_.find('\n', at_);
        if (end == std::string::npos) end = text_.size();
        to(end);
        return text_.substr(begin, end - begin);
    }
    /* From an opening brace to after its partner. */
    void braces()
    {
        int depth = 0;
        do {
            to(text_.find_first_of("{}", at_));
            depth += text_[at_++] == '{' ? 1 : -1;
        } while (depth > 0);
    }
    void file()
    {
        std::string s = to_line_end();
        size_t q = s.find('"'), e = s.find('"', q + 1);
        if (e == std::string::npos) throw PtxError(line_, ".file without a name");
        module_.files[atoi(s.c_str() + 5)] = s.substr(q + 1, e - q - 1);
    }
    void declaration()
    {
        unsigned line = line_;
        size_t begin = at_, head_end = text_.find_first_of("({;=", at_);
        if (head_end == std::string::npos) throw PtxError(line_, "cannot read '" + text_.substr(at_, 40) + "'");
        std::vector<std::string> head = words(text_.substr(begin, head_end - begin));
        bool is_entry = false, is_function = false;
        for (const std::string &w : head) {
            is_entry = is_entry || w == ".entry";
            is_function = is_function || w == ".func" || w == ".entry";
        }
        if (is_function) {
            function(is_entry, line);
            return;
        }
        std::string text = until(";");
        ++at_;
        for (PtxVariable &v : ptx_parse_variables(text, line))
            module_.variables.push_back(std::move(v));
    }
    void function(bool is_entry, unsigned line)
    {
        PtxFunction f;
        f.is_entry = is_entry;
        f.line = line;
        std::string head = until("{;");
        size_t p = head.find(is_entry ? ".entry" : ".func");
        std::string rest = ptx_trim(head.substr(p + (is_entry ? 6 : 5)));
        if (!rest.empty() && rest[0] == '(') {
            size_t end = rest.find(')');
            f.results = parameters(rest.substr(1, end - 1), line);
            rest = ptx_trim(rest.substr(end + 1));
        }
        size_t open = rest.find('('), name_end = rest.find_first_of("( \t\r\n");
        f.name = ptx_trim(rest.substr(0, name_end));
        if (open != std::string::npos) {
            size_t close = rest.find(')', open);
            f.params = parameters(rest.substr(open + 1, close - open - 1), line);
            rest = rest.substr(close + 1);
        }
        size_t limit = rest.find(".maxntid");
        if (limit != std::string::npos) {
            f.max_threads = 1;
            for (const std::string &n :
                 ptx_split(rest.substr(limit + 8, rest.find_first_of(".\n", limit + 1) - limit - 8)))
                f.max_threads *= static_cast<unsigned>(atoi(n.c_str()));
        }
        if (text_[at_] == '{') {
            f.has_body = true;
            ++at_;
            body(f);
        } else {
            ++at_;
        }
        PtxFunction &known = module_.functions[f.name];
        if (!known.has_body) known = std::move(f);
    }
    std::vector<PtxVariable> parameters(const std::string &text, unsigned line)
    {
        std::vector<PtxVariable> out;
        for (const std::string &one : ptx_split(text)) {
            if (one.empty()) continue;
            for (PtxVariable &v : ptx_parse_variables(one, line))
                out.push_back(std::move(v));
        }
        return out;
    }
    void body(PtxFunction &f)
    {
        int depth = 1, file = 0, source_line = 0;
        for (;;) {
            skip_blank();
            if (at_ >= text_.size()) throw PtxError(line_, "the body of '" + f.name + "' does not end");
            unsigned line = line_;
            auto add = [&](PtxStatement::Kind kind, const std::string &text) {
                f.body.push_back({kind, text, line, ids_++, file, source_line});
            };
            if (text_[at_] == '{') {
                ++at_, ++depth;
                add(PtxStatement::OPEN, "{");
                continue;
            }
            if (text_[at_] == '}') {
                ++at_;
                if (--depth == 0) return;
                add(PtxStatement::CLOSE, "}");
                continue;
            }
            if (starts(".loc ") || starts(".loc\t")) {
                sscanf(to_line_end().c_str(), ".loc %d %d", &file, &source_line);
                continue;
            }
            if (text_[at_] == ';') {
                ++at_;
                continue;
            }
            size_t end = text_.find_first_of(";:", at_);
            if (end == std::string::npos) throw PtxError(line_, "a statement does not end");
            std::string text = ptx_trim(text_.substr(at_, end - at_));
            if (text_[end] == ':' && text.find_first_of(" \t\n,[") == std::string::npos &&
                text_.compare(end, 2, "::") != 0) {
                to(end + 1);
                add(PtxStatement::LABEL, text);
                continue;
            }
            std::string whole = ptx_trim(until(";"));
            ++at_;
            for (char &c : whole)
                if (isspace(static_cast<unsigned char>(c))) c = ' ';
            add(PtxStatement::INSTRUCTION, whole);
        }
    }
};

} // namespace

std::vector<PtxVariable> ptx_parse_variables(const std::string &declaration, unsigned line)
{
    std::string text = declaration, initial;
    size_t equals = text.find('=');
    if (equals != std::string::npos) {
        initial = ptx_trim(text.substr(equals + 1));
        text = text.substr(0, equals);
    }
    PtxVariable base;
    unsigned type_bytes = 0, vector = 1;
    bool aligned = false, of_pointer = false;
    std::string names;
    std::vector<std::string> parts = words(text);
    for (size_t k = 0; k < parts.size(); ++k) {
        const std::string &w = parts[k];
        if (w[0] != '.') {
            names += w + " ";
        } else if (w == ".align") {
            if (++k >= parts.size()) throw PtxError(line, ".align without a number");
            if (!of_pointer) base.align = number(parts[k], line), aligned = true;
        } else if (w == ".ptr") {
            of_pointer = true; /* what follows tells about the pointed-to memory */
        } else if (of_pointer && (w == ".global" || w == ".shared" || w == ".const" || w == ".local")) {
            continue;
        } else if (w == ".global") {
            base.space = PtxSpace::GLOBAL;
        } else if (w == ".const") {
            base.space = PtxSpace::CONST;
        } else if (w == ".shared") {
            base.space = PtxSpace::SHARED;
        } else if (w == ".local") {
            base.space = PtxSpace::LOCAL;
        } else if (w == ".param") {
            base.space = PtxSpace::PARAM;
        } else if (w == ".extern") {
            base.is_external = true;
        } else if (w == ".v2" || w == ".v4") {
            vector = static_cast<unsigned>(w[2] - '0');
        } else if (ptx_type_bytes(w.substr(1))) {
            type_bytes = ptx_type_bytes(w.substr(1));
        }
    }
    if (!type_bytes) throw PtxError(line, "a variable without a type: '" + ptx_trim(declaration) + "'");
    std::vector<PtxVariable> out;
    for (const std::string &one : ptx_split(names)) {
        PtxVariable v = base;
        if (!aligned) v.align = type_bytes * vector;
        v.n_bytes = type_bytes * vector;
        size_t bracket = one.find('[');
        v.name = ptx_trim(one.substr(0, bracket));
        for (; bracket != std::string::npos; bracket = one.find('[', bracket + 1)) {
            std::string n = ptx_trim(one.substr(bracket + 1, one.find(']', bracket) - bracket - 1));
            if (n.empty())
                v.unsized = true, v.n_bytes = 0;
            else
                v.n_bytes *= number(n, line);
        }
        if (v.name.empty()) throw PtxError(line, "a variable without a name: '" + ptx_trim(declaration) + "'");
        if (!initial.empty()) {
            v.initial.assign(v.n_bytes, 0);
            std::string flat;
            for (char c : initial)
                if (c != '{' && c != '}') flat += c;
            uint64_t at = 0;
            for (const std::string &element : ptx_split(flat)) {
                put_element(v, at, type_bytes, element, line);
                at += type_bytes;
            }
        }
        out.push_back(std::move(v));
    }
    return out;
}

PtxModule ptx_parse(const std::string &text)
{
    return Parser(text).parse();
}

} // namespace vgpu

/* The text of a PTX module, taken apart into variables, functions and statements; what the statements mean is
 * decode.cpp's. Throws PtxError, which names the line. */
#ifndef VGPU_PTX_H
#define VGPU_PTX_H

#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace vgpu
{

struct PtxError : std::runtime_error {
    PtxError(unsigned line, const std::string &what)
        : std::runtime_error("PTX line " + std::to_string(line) + ": " + what)
    {
    }
};

enum class PtxSpace { GLOBAL, CONST, SHARED, LOCAL, PARAM };

struct PtxVariable {
    std::string name;
    PtxSpace space = PtxSpace::GLOBAL;
    uint64_t align = 1, n_bytes = 0;
    bool unsized = false; /* name[]: dynamic shared memory */
    bool is_external = false;
    std::vector<uint8_t> initial;                            /* n_bytes, or empty: zeros */
    std::vector<std::pair<uint64_t, std::string>> addresses; /* (offset, symbol) to be filled in */
};

struct PtxStatement {
    enum Kind { INSTRUCTION, LABEL, OPEN, CLOSE } kind;
    std::string text;
    unsigned line;                /* of the PTX text */
    unsigned id;                  /* number of the statement in its module */
    int source_file, source_line; /* of .loc, 0 when there is none */
};

struct PtxFunction {
    std::string name;
    bool is_entry = false, has_body = false;
    unsigned line = 0;
    unsigned max_threads = 0; /* .maxntid, 0: not limited */
    std::vector<PtxVariable> params, results;
    std::vector<PtxStatement> body;
};

struct PtxModule {
    std::vector<PtxVariable> variables;
    std::map<std::string, PtxFunction> functions;
    std::map<int, std::string> files;
};

PtxModule ptx_parse(const std::string &text);

/* Pieces that the decoder shares. */
unsigned ptx_type_bytes(const std::string &type); /* "f32" -> 4; 0: not a type; pred -> 0 */
std::string ptx_trim(const std::string &s);
/* Parts between commas outside brackets and braces. */
std::vector<std::string> ptx_split(const std::string &s);
/* ".shared .align 4 .b8 name[16]" and the like, several names allowed. */
std::vector<PtxVariable> ptx_parse_variables(const std::string &text, unsigned line);

} // namespace vgpu
#endif

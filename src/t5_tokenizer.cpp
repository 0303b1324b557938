#include "t5_tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <iterator>
#include <new>
#include <string>
#include <sys/stat.h>
#include <vector>

#include "spiece_check.h"

struct t5_tokenizer {
    sentencepiece::SentencePieceProcessor processor;
};

enum { TEXT_MAX_BYTES = 1 << 26 };

/* C++ ends here: nothing thrown in work passes. */
template <typename Work> static status guarded(status bad, const char *what, Work work)
{
    try {
        return work();
    } catch (const std::bad_alloc &) {
        return err_set(ST_NO_MEMORY, "%s: out of memory", what);
    } catch (const std::exception &e) {
        return err_set(bad, "%s: SentencePiece: %s", what, e.what());
    } catch (...) {
        return err_set(bad, "%s: unknown failure in SentencePiece", what);
    }
}

static status load(t5_tokenizer *t, const std::string &path)
{
    struct stat info;
    if (stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) {
        return err_set(ST_BAD_MODEL,
                       "%s: not there. T5 prompts need the SentencePiece model; a folder with only tokenizer.json is "
                       "not enough (spiece.model is in tokenizer_2/ of the FLUX.1 repositories)",
                       path.c_str());
    }
    std::ifstream file(path, std::ios::binary);
    std::string model{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    if (!file) return err_set(ST_BAD_MODEL, "%s: %s", path.c_str(), std::strerror(errno));
    status st = spiece_check(reinterpret_cast<const uint8_t *>(model.data()), model.size(), path.c_str());
    if (st != ST_OK) return st;
    const sentencepiece::util::Status loaded = t->processor.LoadFromSerializedProto(model);
    if (!loaded.ok() || t->processor.GetPieceSize() == 0) {
        return err_set(ST_BAD_MODEL, "%s: no valid SentencePiece model (%zu bytes): %s", path.c_str(), model.size(),
                       loaded.ok() ? "it has no pieces" : loaded.ToString().c_str());
    }
    if (t->processor.eos_id() < 0 || t->processor.pad_id() < 0 || t->processor.unk_id() < 0) {
        return err_set(ST_BAD_MODEL, "%s: ids of the end, padding and unknown pieces: got %d, %d, %d, want all of them",
                       path.c_str(), t->processor.eos_id(), t->processor.pad_id(), t->processor.unk_id());
    }
    return ST_OK;
}

status t5_tokenizer_open(t5_tokenizer **out, const char *dir)
{
    return guarded(ST_BAD_MODEL, dir, [&] {
        t5_tokenizer *t = new t5_tokenizer;
        const std::string path = std::string(dir) + "/spiece.model";
        status st = guarded(ST_BAD_MODEL, path.c_str(), [&] { return load(t, path); });
        if (st == ST_OK) {
            *out = t;
        } else {
            t5_tokenizer_close(t);
        }
        return st;
    });
}

void t5_tokenizer_close(t5_tokenizer *t)
{
    delete t;
}

int32_t t5_tokenizer_n_ids(const t5_tokenizer *t)
{
    return t->processor.GetPieceSize();
}

/* The text of the pieces from n on; U+2581 marks a space. */
static std::string text_of_pieces(const std::vector<std::string> &pieces, size_t n)
{
    static const char space[] = "\xe2\x96\x81";
    std::string text;
    for (; n < pieces.size(); n++) {
        for (size_t i = 0; i < pieces[n].size();) {
            bool is_space = pieces[n].compare(i, sizeof(space) - 1, space) == 0;
            text += is_space ? ' ' : pieces[n][i];
            i += is_space ? sizeof(space) - 1 : 1;
        }
    }
    text.erase(0, text.find_first_not_of(' '));
    return text;
}

status t5_tokenizer_encode(const t5_tokenizer *t, const char *text, int max_length, int32_t *ids, int *n_used,
                           char **lost)
{
    size_t n_bytes = std::strlen(text);
    if (max_length < 1) return err_set(ST_BAD_JOB, "t5 tokenizer: max_length: got %d, want at least 1", max_length);
    if (n_bytes > TEXT_MAX_BYTES) {
        return err_set(ST_BAD_JOB, "a prompt of %zu bytes, want at most %d", n_bytes, static_cast<int>(TEXT_MAX_BYTES));
    }
    return guarded(ST_FAILED, "t5 tokenizer", [&] {
        std::vector<int> all;
        const sentencepiece::util::Status encoded = t->processor.Encode({text, n_bytes}, &all);
        if (!encoded.ok()) return err_set(ST_FAILED, "t5 tokenizer: %s", encoded.ToString().c_str());
        size_t n = std::min(all.size(), static_cast<size_t>(max_length) - 1);
        char *rest = nullptr;
        if (n < all.size()) {
            std::vector<std::string> pieces;
            const sentencepiece::util::Status named = t->processor.Encode({text, n_bytes}, &pieces);
            if (!named.ok()) return err_set(ST_FAILED, "t5 tokenizer: %s", named.ToString().c_str());
            rest = strdup(text_of_pieces(pieces, n).c_str());
            if (rest == nullptr) throw std::bad_alloc();
        }
        std::copy_n(all.begin(), n, ids);
        ids[n] = t->processor.eos_id();
        std::fill(ids + n + 1, ids + max_length, t->processor.pad_id());
        *n_used = static_cast<int>(n) + 1;
        *lost = rest;
        return ST_OK;
    });
}

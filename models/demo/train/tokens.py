"""Makes both tokenizers from captions and general words: $DEMO_STATE/tokenizer (CLIP's byte-level BPE) and tokenizer_2 (SentencePiece).

    tokens.py           needs spm_train (Debian: sentencepiece)
"""
import collections
import json
import os
import re
import subprocess

import numpy as np

import scenes

STATE = os.environ.get("DEMO_STATE", "demo-state")
T5_LENGTH = 32            # padded length of the T5 rows, in training and in rendering
CLIP_LENGTH = 77

# Words a prompt may well contain besides those of the captions: the tokenizers should not spell them letter by letter.
GENERAL = """a an the of in on at by with and or over under above below near far from to into behind between beyond is are was be it its
this that very more many much some no not one two three four five wide panorama panoramic view picture painting photograph photo
beautiful calm quiet silent bright dark deep golden blue green red orange purple pink white black silver warm cold distant endless
tall high low steep rugged rolling gentle vast small large big old young new early late morning midday evening midnight afternoon
spring summer autumn winter day sunny starry moonlit moonlight sunlight light shadow glow haze fog mist cloud clouds star stars
rain snow ice storm wind weather river valley hill hills ridge ridges summit cliff cliffs rock rocks stone stones water reflection
reflected reflections shore island bay ocean sea coast waves tree trees pine pines wood woods grass flower flowers field fields
plain alpine alps range horizon scenery nature world quality detailed style art oil watercolor digital""".split()


def byte_symbols():
    """CLIP's table: each byte as a printable character, in the order of its vocabulary."""
    keep = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in keep]
    return [chr(b) for b in keep] + [chr(256 + i) for i in range(len(rest))]


def byte_pair_merges(counts, limit):
    """Plain BPE on words of ASCII letters; ties go to the pair that sorts first."""
    words = {w: list(w[:-1]) + [w[-1] + "</w>"] for w in counts}
    merges = []
    while len(merges) < limit:
        pairs = collections.Counter()
        for w, parts in words.items():
            for pair in zip(parts, parts[1:]):
                pairs[pair] += counts[w]
        if not pairs:
            break
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        for w, parts in words.items():
            i = 0
            while i < len(parts) - 1:
                if (parts[i], parts[i + 1]) == best:
                    parts[i:i + 2] = ["".join(best)]
                i += 1
    return merges


def main():
    rng = np.random.default_rng(0)
    captions = [scenes.caption(scenes.sample_scene(rng), rng) for _ in range(4000)]
    os.makedirs(f"{STATE}/tokenizer", exist_ok=True)
    os.makedirs(f"{STATE}/tokenizer_2", exist_ok=True)

    counts = collections.Counter(w for c in captions for w in re.findall("[a-z]+", c))
    counts.update({w: 3 for w in GENERAL})
    merges = byte_pair_merges(counts, 700)
    symbols = byte_symbols()
    vocab = symbols + [s + "</w>" for s in symbols] + ["".join(m) for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
    assert len(set(vocab)) == len(vocab)
    with open(f"{STATE}/tokenizer/vocab.json", "w") as f:
        json.dump({t: i for i, t in enumerate(vocab)}, f)
    with open(f"{STATE}/tokenizer/merges.txt", "w") as f:
        f.write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))

    with open(f"{STATE}/tokenizer_2/text.txt", "w") as f:
        f.write("\n".join(captions) + "\n")
        for w in sorted(counts):                      # the trainer only considers what several different words contain
            f.write(f"{w} {w}, {w}. {w}! {w}?\n")
        for _ in range(500):                         # general words in random company, some capitalised, some with numbers
            words = [GENERAL[i] for i in rng.integers(0, len(GENERAL), 8)]
            words[rng.integers(8)] = str(rng.integers(0, 3000))
            k = rng.integers(8)
            words[k] = words[k].capitalize()
            f.write(" ".join(words) + ".\n")
    ascii_chars = "".join(chr(c) for c in range(0x21, 0x7F))
    subprocess.run(["spm_train", f"--input={STATE}/tokenizer_2/text.txt", f"--model_prefix={STATE}/tokenizer_2/spiece", "--model_type=unigram",
                    "--vocab_size=900", "--hard_vocab_limit=false", "--character_coverage=1.0", "--normalization_rule_name=nmt_nfkc",
                    f"--required_chars={ascii_chars}", "--pad_id=0", "--eos_id=1", "--unk_id=2", "--bos_id=-1", "--num_threads=1",
                    "--minloglevel=2"], check=True)

    from transformers import CLIPTokenizer, T5Tokenizer
    clip = CLIPTokenizer(f"{STATE}/tokenizer/vocab.json", f"{STATE}/tokenizer/merges.txt", model_max_length=CLIP_LENGTH)
    clip.save_pretrained(f"{STATE}/tokenizer")
    t5 = T5Tokenizer(f"{STATE}/tokenizer_2/spiece.model", extra_ids=0, model_max_length=T5_LENGTH, legacy=True)
    t5.save_pretrained(f"{STATE}/tokenizer_2")
    lengths = [len(t5(c).input_ids) for c in captions]
    print(f"CLIP {len(vocab)} tokens; T5 {len(t5)} pieces; caption: at most {max(lengths)} pieces, {np.mean(lengths):.1f} on average,"
          f" {max(len(clip(c).input_ids) for c in captions)} CLIP tokens")
    print(t5.convert_ids_to_tokens(t5(captions[1]).input_ids))


if __name__ == "__main__":
    main()

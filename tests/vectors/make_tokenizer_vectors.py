"""Token ids for tests/parity_tokenizers.c, by the reference tokenizers.

    python tests/vectors/make_tokenizer_vectors.py             writes tokenizers/prompts.json
    python tests/vectors/make_tokenizer_vectors.py --merges BPE_GZ   writes tokenizers/merges.txt
    python tests/vectors/make_tokenizer_vectors.py --train     writes tokenizers/spiece.model

Made with Python 3.11.7 (Unicode 14), transformers 4.57.6, regex 2026.11.15, sentencepiece 0.2.3, and for --train also
Faker 40.54.0. ftfy must NOT be installed. tokenizers/README.md tells what is in the files and where they come from.
"""

import argparse
import gzip
import json
import pathlib
import random
import tempfile
import unicodedata

HERE = pathlib.Path(__file__).parent / "tokenizers"
SEED = 20240607
CLIP_LENGTH, T5_LENGTH = 77, 96
START, END = "<|startoftext|>", "<|endoftext|>"

# Scene descriptions in many scripts; the random prompts are cut from these too.
LANGUAGES = """
A cat holding a sign that says hello world
a photo of a cat
An astronaut riding a horse on Mars, cinematic lighting, 8k, highly detailed, by Greg Rutkowski
Ein Bergsee in der Dämmerung, Nebel über dem Wasser, weißes Licht, GROẞE Straße
Une forêt enchantée à l'aube, très détaillée, œuvre d'art, où l'été s'achève
El niño corrió más rápido; ¿quién pintó el cuadro? ¡Qué maravilla!
Uma manhã em São Paulo, coração e pão de açúcar
Zażółć gęślą jaźń, łódka na jeziorze
Příliš žluťoučký kůň úpěl ďábelské ódy
Árvíztűrő tükörfúrógép, őszi erdő
İstanbul'da IŞIK ve ısı: ĞÜŞİÖÇ ığdır
Ο ΟΔΥΣΣΕΥΣ ΕΠΙΣΤΡΕΦΕΙ ΣΤΗΝ ΙΘΑΚΗ, ΘΑΛΑΣΣΑΣ ΚΥΜΑ
Τὸν ἄνδρα μοι ἔννεπε, Μοῦσα, πολύτροπον, ᾧ ᾳ ῃ ᾼ
Горы на рассвете, туман над озером, ЁЛКА и подъезд
Захід сонця над Дніпром, їжак і ґанок
Љубичаста ђурђица у Њујорку
Հայաստանի լեռները արևածագին և եւ
საქართველოს მთები ᲛᲗᲔᲑᲘ და ზღვა
מגדל ליד הים בשקיעה, שָׁלוֹם עֲלֵיכֶם
جبال مغطاة بالثلج عند الفجر، السَّلَامُ عَلَيْكُمْ
منظره‌ای از کوه‌های البرز در غروب
پہاڑوں پر برف باری کا منظر
पहाड़ों पर सूर्योदय, क़िला और ज़मीन, हिन्दी
পাহাড়ের উপর সূর্যোদয়, বাংলাদেশ
ਪਹਾੜਾਂ ਉੱਤੇ ਸੂਰਜ
પર્વતો પર સૂર્યોદય
மலைகளின் மேல் சூரிய உதயம், கொ கோ
పర్వతాలపై సూర్యోదయం
ಪರ್ವತಗಳ ಮೇಲೆ ಸೂರ್ಯೋದಯ
മലകൾക്ക് മുകളിൽ സൂര്യോദയം
කඳු මත හිරු උදාව
ภูเขาหิมะยามเช้า น้ำตก ๑๒๓
ພູເຂົາ ແລະ ນ້ຳ
དཔལ་ལྡན་གངས་རི
တောင်ပေါ်တွင် နေထွက်ချိန်
ភ្នំនៅពេលព្រឹក
ተራራ ላይ ፀሐይ ስትወጣ
ᚠᛇᚻ ᛒᛦᚦ ᚠᚱᚩᚠᚢᚱ
ᎣᏏᏲ Ꭰꮳꮃ ꭰꮝ
ᐃᓄᒃᑎᑐᑦ ᓄᓇᕗᑦ
ᠮᠣᠩᠭᠣᠯ ᠪᠢᠴᠢᠭ
黎明时分雪山下的湖泊，水墨画风格
黎明時分雪山下的湖泊，書道
夜明けの富士山、桜と湖、ガラスのﾊﾝｶｸ文字
서리가 내린 산과 호수의 새벽
ᄒᆞᆫ글 옛한글 ᄀᆞᄂᆞᆯ
Bình minh trên núi, hồ nước và sương mù ở Việt Nam
Ọjọ́ tó dára, ẹ káàbọ̀
ꦱꦸꦒꦼꦁ ꦫꦮꦸꦃ
𐌰𐌽𐌳 𐍃𐌰 𐐀𐐁𐐨𐐩 𞤀𞤁𞤢
"""

HAND = [
    "", " ", "   \t \n ", "a", "A", "!", "'", "''", "'s", "'S", "don't", "DON'T", "it's 2024 — café ☕", "don't stop!!!", "Hello, world!",
    "I'll I'LL we've WE'VE they're THEY'RE I'm I'M he'd HE'D she's SHE'S can't CAN'T", "rock'n'roll 'tis 'twas o'clock y'all'd've",
    "It’s we’ve don’t ‘quoted’ “double” „low“ «guillemets»", "'ſ x'ſ 'ſx ſ ſt", "''s ''S '''ll 'l 'r 'v 're're", "!!'s ?'ll .'re",
    "x'sy x'Sy x'llama x'vex 'd'd'd", "snake_case camelCase kebab-case dot.case path/to/file.txt C++ C# a=b;c:d", "50% off!!! $9.99 €20 £5 ¥100 ₹7 ₿1",
    "1234567890", "3.14159 1,000,000 1e-5 0x1F 007", "½ ¼ ¾ ² ³ ¹ ⁰ ₂ x² H₂O", "Ⅷ ⅷ Ⅻ ↀ ① ⑳ ⒈ ㊿ 🄀", "٣ ٤٥ ۳ ۴۵ ३४ ৩৪ ๓๔ ໓ ༣ ၃ ៣ ３４ 𝟛𝟜 𐒢 〇 一二三", "x2y3z4 a1b22c333",
    "ＦＵＬＬ ｗｉｄｔｈ ！？", "ﬁ ﬂ ﬀ ﬃ ﬅ ﬆ Ĳ ĳ Ǆ ǅ ǆ ŉ", "Ⓐⓑ 🅰🅱 🄰 🅐 𝐀𝓫𝔠 ℵ ℂ ℝ K Å Ω",
    # Lower case of Python: final sigma in its contexts, the dotted capital I
    "Σ", "ΑΣ", "ΣΑ", "ΑΣΑ", "ΑΣ.", "ΑΣ.Α", "ΑΣ'Α", "ΑΣ’Α ΑΣ·Α ΑΣ:Α", "Α\u0301Σ Α.Σ .Σ 'Σ", "ΑΣ\u0301 ΑΣ\u0301Α ΑΣ\u00adΑ", "ΣΣ ΣΣΣ ΑΣΣ", "aΣ 1Σ ªΣ ⒶΣ ⅧΣ ʰΣ 漢Σ", "ΑΣ1 ΑΣ- ΑΣ-Α ΑΣ^Α ΑΣ¨",
    "ς σ Σ ϲ Ϲ", "İ", "İİ Iİ İI", "İSTANBUL İzmir DİYARBAKIR", "I\u0307 i\u0307 ı I", "ẞ ß SS", "ǅungla Ǉ ǈ ᾼ ᾈ ῼ", "ᏣᎳᎩ ꮳ Ა ა Ⴀ ⴀ", "Ȿ Ɀ Ⱥ Ⱦ ⱥ Ɪ Ꞗ Ɡ",
    # NFC and marks
    "e\u0301 é E\u0301 É", "cafe\u0301 café", "a\u0323\u0302 a\u0302\u0323 ậ", "q\u0307\u0323 q\u0323\u0307", "\u1112\u1161\u11ab\u1100\u1173\u11af 한글 \u1112\u1161 \uac00\u11a8", "\u0301", "\u0301a", "a\u0301\u0301\u0301",
    "Z̸̢͈a̷͎͝l̶̰͋g̵̱̈́o̴͙̕ ̸̨t̶̼̿e̶͎̿x̵̱̊t̷̙̔", "\u0345 a\u0345 α\u0345 b\u0345c ᾳ", "α\u0313\u0300\u0345 ᾂ", "क\u093c क़ ড\u09bc ড়", "\u0b47\u0b3e \u0b4b", "\u212b \u2126 \u212a \u2000 \u2329", "שּׁ ש\u05bc\u05c1", "\u0f73 \u0f71\u0f72", "\u0958 \ufb1d \u2adc",
    "\U0001d15e \U0001d157\U0001d165", "𑄮 \U00011131\U00011127", "e\u200d\u0301 e\u00ad\u0301", "\u0344 \u0340 \u0341 \u0343 \u0374 \u037e \u0387 \u1fef",
    # Controls, formats, spaces
    "a\tb\nc\rd\r\ne", "a\x01b\x02c\x1bd\x7fe", "a\x0bb\x0cc\x1cd\x1de\x1ef\x1fg", "a\x85b\x80c\x9fd", "bell\x07 and [31mred\x1b[0m", "a\u00a0b\u2003c\u3000d\u202fe\u205ff\u1680g", "a\u2028b\u2029c", "\u2028\u2029",
    "a\u200bb\u200cc\u200dd\u2060e\ufefff", "\ufeffBOM first", "soft\u00adhyphen", "\u202eright to left\u202c \u2066isolate\u2069", "a\u180eb", "\ufffd a\ufffdb \ufffd", "\ufffc object", "private \ue000 use \uf8ff and \U000f0000 \U0010fffd", "nonchar \uffff \ufdd0 \U0001ffff x", "unassigned \u0378 \U000e0080 x",
    "tags \U000e0041\U000e0042 x", "variation \u2603\ufe0e \u2603\ufe0f A\U000e0100", "\u2060", "\x7f", "a  b   c", "  leading", "trailing  ", "ideographic　space　", "tab\t\ttab",
    # Emoji
    "😀", "😀😃😄", "👨‍👩‍👧‍👦 family", "👩🏽‍🚀 👍🏿 🧑🏻‍🤝‍🧑🏿", "🇩🇪🇯🇵🇺🇦 flags", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "🏳️‍🌈 🏴‍☠️", "1️⃣ #️⃣ *️⃣", "❤️ ❤ ♥ ♡", "a😀b 1😀2 '😀s", "☕☕☕", "🫠🫡", "cat🐱dog🐶cat", "♻ ✈ ☀ ☂ ★ → ⇒ ∀ ∑ √ ∞ ≠",
    # Ideographs stand alone, with their borders
    "漢字kanji漢字", "a漢b", "㐀䶿 一鿿 豈﫿 𠀀𪛟 𪜀𬺡 丽\U0002fa1f", "𬺰 𮯠 𰀀", "。、「」『』・ー々〆", "ひらがなカタカナ漢字", "〇〡〢 ㍿ ㋿ ㊙", "龍\u0301", "金\uf90a 樂\uf914 車",
    # Special tokens and what looks like them
    START, END, START + "a cat" + END, "a " + END + " b", "a" + END + "b", END * 5, "<|STARTOFTEXT|> <|EndOfText|>", "<|startoftext|", "<|startoftext|>|>", "<|start\u200boftext|>", "<|ſtartoftext|>", "<|startofteẋt|>", "<|endoftext|>'s",
    "x<|endoftext|>漢", "'<|endoftext|>'", "!<|ENDOFTEXT|>", "<|endoftext|> \u0301", "e<|endoftext|>\u0301", "ΑΣ<|endoftext|>Α", "</w> a</w> </w>b", "</s> <s> <pad> <unk> <extra_id_0> <extra_id_99>", "a</s>b", "▁ ▁a a▁b ▁▁", "<0x41> <unk>", "Ġ Ġa Ċ âĢĻ", "<cat-toy> <cat toy>", "[CLS] [MASK]",
    # Odd text
    "https://example.com/a?b=c&d=%20#frag", "user@example.com", "<b>bold</b> &amp; &lt;", "{\"key\": [1, 2, null]}", "\\n \\t \\u0041 C:\\Users", "(parentheses), [brackets], {braces}; #hashtag @mention ~tilde ^caret `tick`", "SHOUTING AND whispering", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ababababababab", "the the the", "………—–‐-", "!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!",
    "((a:1.2), [b], (c))", "masterpiece, best quality, 1girl, solo, <lora:add_detail:0.8>", "a:b::c", "mañana MAÑANA man\u0303ana", "pneumonoultramicroscopicsilicovolcanoconiosis", "Donaudampfschifffahrtsgesellschaftskapitän", "a serene mountain lake at sunset, 8k, highly detailed",
]

REPEATED = [  # [text, times]: long prompts in few bytes
    ["a", 12000], ["ab", 9000], ["cat ", 4000], ["漢字", 3000], ["😀", 4000], ["é\u0301\u0323", 3000], ["\u0323\u0301", 4000], ["'s", 3000], ["1", 2000], ["ΑΣ' ", 2000], ["ΣΑΣ", 2500], [END + " ", 500], ["!?.", 4000],
    ["a serene mountain lake at sunset, highly detailed; ", 300], ["Ω\u0345İ", 2000], ["한\u1112\u1161\u11ab", 1500], ["पहाड़ों पर ", 700], [" ", 20000], ["\u200b", 9000], ["x" * 63 + " ", 300], ["</s>", 600], ["\U0001d15e", 1500],
]

# Folders beside FLUX.1's own: what else can stand in the files and change ids. The vocabulary is always the same.
TOKEN = dict(lstrip=False, normalized=True, rstrip=False, single_word=False, special=False)
FOLDERS = {
    "flux": {"tokenizer_config.json": dict(
        add_prefix_space=False, bos_token=START, clean_up_tokenization_spaces=True, do_lower_case=True, eos_token=END,
        errors="replace", model_max_length=77, pad_token=END, tokenizer_class="CLIPTokenizer", unk_token=END,
        added_tokens_decoder={"49406": dict(TOKEN, content=START, special=True),
                              "49407": dict(TOKEN, content=END, special=True, normalized=False)})},
    "bare": {},
    "reversed merges": {},
    "split": {"tokenizer_config.json": dict(split_special_tokens=True)},
    "added": {"tokenizer_config.json": dict(
        bos_token=START, eos_token=END, unk_token=END, pad_token="!", model_max_length=77,
        additional_special_tokens=["<new1>", "cat"],
        added_tokens_decoder={
            "49406": dict(TOKEN, content=START, special=True), "49407": dict(TOKEN, content=END, special=True),
            "49408": dict(TOKEN, content="<cat-toy>"), "49409": dict(TOKEN, content="<cat", lstrip=True),
            "49410": dict(TOKEN, content="toy>", rstrip=True), "49411": dict(TOKEN, content="狗", single_word=True),
            "49412": dict(TOKEN, content="dogqx", single_word=True, lstrip=True, rstrip=True)})},
    "old": {"tokenizer_config.json": dict(model_max_length=int(1e30), bos_token="not believed"),
            "added_tokens.json": {"<cat-toy>": 49408, "<pad>": 49409},
            "special_tokens_map.json": dict(
                bos_token=dict(TOKEN, content=START), eos_token=dict(TOKEN, content=END, lstrip=True, rstrip=True),
                unk_token=END, pad_token="<pad>", additional_special_tokens=["zz", "<q>"])},
}
ADDED_HAND = [
    "a <cat-toy> on a sofa", "a<cat-toy>b", "a <cat <cat-toy toy> b", "  <cat  toy>  x", "狗 a狗 狗b a狗b 狗狗", "dogqx", "a dogqx b", "adogqx b", "a dogqxb", "dogqxdogqx", "a\tdogqx\tb", " dogqx ", "dogqx\u3000x",
    "<new1><new1> cat catfish Cat", "wow! wow!! !a!", "<pad> a<pad>", "zz pizza zzz", "<q> <q", "a \u2003 " + END + " \n b", END + "  " + END, "x " + START + END + " y", "<CAT-TOY>",
]


def check_text(text):
    """The vectors are Unicode 14's; later versions assign chars that here are dropped as unassigned."""
    for char in text:
        assert char != "\0" and not 0xD800 <= ord(char) < 0xE000
        assert unicodedata.category(char) != "Cn" or ord(char) in (
            0x378, 0xE0080, 0xFFFF, 0xFDD0, 0x1FFFF, 0xFADA, 0xFAFF, 0x2FA1F), hex(ord(char))
    return text


def random_prompts(rng, n):
    words = LANGUAGES.split()
    odd = ["\u0301", "\u0345", "\u200d", "\ufe0f", "\u3000", "\u2028", "\x85", "\u00ad", "\ufffd", "Σ", "İ", "'s", "'LL", "’s", "½", "Ⅷ", "漢", "😀", "!", "...", " ", "  ", "\t", START, END, "\ue000", "\u1112\u1161\u11ab"]
    blocks = [(0x20, 0x7F), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x52F), (0x590, 0x6FF), (0x900, 0xDFF), (0xE00, 0xFFF), (0x1100, 0x11FF), (0x1E00, 0x1FFF), (0x2000, 0x27BF), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xA640, 0xA7FF),
              (0xAC00, 0xD7A3), (0xF900, 0xFAFF), (0xFE00, 0xFFEF), (0x10000, 0x103FF), (0x1D100, 0x1D7FF), (0x1F300, 0x1F6FF), (0x20000, 0x20100), (0x2F800, 0x2FA1D)]

    def char():
        while True:
            c = chr(rng.randrange(*rng.choice(blocks)))
            if unicodedata.category(c) != "Cn":
                return c

    for _ in range(n):
        parts = []
        for _ in range(rng.randrange(3, 40)):
            kind = rng.random()
            parts.append(rng.choice(words) if kind < 0.3 else rng.choice(odd) if kind < 0.6 else char())
            if rng.random() < 0.3:
                parts.append(" ")
        yield "".join(parts)


def fnv1a64(ids):
    h = 0xCBF29CE484222325
    for number in ids:
        for byte in int(number).to_bytes(4, "little"):
            h = ((h ^ byte) * 0x100000001B3) & ((1 << 64) - 1)
    return f"{h:016x}"


def byte_chars():
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printed]
    return [chr(b) for b in printed] + [chr(0x100 + i) for i in range(len(others))]


def write_clip_folder(folder, name):
    merges = (HERE / "merges.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
    chars = byte_chars()
    tokens = chars + [c + "</w>" for c in chars] + [m.replace(" ", "") for m in merges[1:]] + [START, END]
    if name == "reversed merges":
        merges[1:] = merges[:0:-1]
    (folder / "merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}), encoding="utf-8")
    for file, content in FOLDERS[name].items():
        (folder / file).write_text(json.dumps(content), encoding="utf-8")


def clip_case(tokenizer, text):
    everything = tokenizer(text, verbose=False).input_ids
    padded = tokenizer(text, padding="max_length", truncation=True, max_length=CLIP_LENGTH, verbose=False).input_ids
    n_used = min(len(everything), CLIP_LENGTH)
    assert all(i == tokenizer.pad_token_id for i in padded[n_used:])
    case = dict(clip=padded[:n_used], clip_all=[len(everything), fnv1a64(everything)])
    if len(everything) > CLIP_LENGTH:
        lost = tokenizer.decode(everything[CLIP_LENGTH - 1:-1], clean_up_tokenization_spaces=False)
        if len(lost) < 2000:
            case["clip_lost"] = lost
    return case


def t5_case(processor, text):
    ids, pieces = processor.encode(text), processor.encode(text, out_type=str)
    everything = ids + [processor.eos_id()]
    case = dict(t5=ids[:T5_LENGTH - 1] + [processor.eos_id()], t5_all=[len(everything), fnv1a64(everything)])
    if len(everything) > T5_LENGTH:
        lost = "".join(pieces[T5_LENGTH - 1:]).replace("▁", " ").lstrip(" ")
        if len(lost) < 2000:
            case["t5_lost"] = lost
    return case


def make_prompts():
    import sentencepiece
    from transformers import CLIPTokenizer

    rng = random.Random(SEED)
    plain = LANGUAGES.strip().split("\n") + HAND + list(random_prompts(rng, 150))
    plain.append(" ".join(LANGUAGES.split()))
    prompts = [dict(text=check_text(text)) for text in plain]
    prompts += [dict(text=check_text(text), times=times) for text, times in REPEATED]
    added = [dict(text=check_text(text)) for text in ADDED_HAND + plain[:12] + HAND[-80:] + list(random_prompts(rng, 10))]
    processor = sentencepiece.SentencePieceProcessor(model_file=str(HERE / "spiece.model"))
    folders = {}
    for name, files in FOLDERS.items():
        with tempfile.TemporaryDirectory() as folder:
            write_clip_folder(pathlib.Path(folder), name)
            tokenizer = CLIPTokenizer.from_pretrained(folder)
        assert tokenizer.fix_text is None, "ftfy is installed"
        cases = [dict(p) for p in (prompts if name == "flux" else added)]
        for case in cases:
            text = case["text"] * case.get("times", 1)
            case.update(clip_case(tokenizer, text))
            if name == "flux":
                case.update(t5_case(processor, text))
        folders[name] = dict(files={file: json.dumps(content) for file, content in files.items()},
                             pad=tokenizer.pad_token_id, prompts=cases)
    with open(HERE / "prompts.json", "w", encoding="utf-8") as out:
        out.write(json.dumps(dict(clip_length=CLIP_LENGTH, t5_length=T5_LENGTH, folders=folders),
                             ensure_ascii=True, separators=(",", ":")).replace('{"text"', '\n{"text"') + "\n")
    print(len(prompts), "prompts,", len(added), "more per folder")


def make_merges(path):
    lines = gzip.open(path, "rt", encoding="utf-8").read().split("\n")
    (HERE / "merges.txt").write_text("\n".join(["#version: 0.2"] + lines[1:48895]) + "\n", encoding="utf-8")


def train():
    import pydoc_data.topics
    import sentencepiece
    from faker import Faker

    Faker.seed(SEED)
    sentences = [line.strip() for text in pydoc_data.topics.topics.values() for line in text.split("\n")]
    sentences += LANGUAGES.strip().split("\n") * 5
    for locale in ("ar_AA bn_BD cs_CZ de_DE el_GR en_US es_ES fa_IR fr_FR he_IL hy_AM it_IT ja_JP ka_GE pl_PL ru_RU "
                   "th_TH uk_UA vi_VN zh_CN").split():
        fake = Faker(locale)
        sentences += [fake.sentence(12) for _ in range(400)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(s for s in sentences if s), model_prefix=str(HERE / "spiece"), model_type="unigram",
        vocab_size=3000, character_coverage=0.999, normalization_rule_name="nmt_nfkc", byte_fallback=False, pad_id=0,
        eos_id=1, unk_id=2, bos_id=-1, pad_piece="<pad>", num_threads=1, minloglevel=2)
    (HERE / "spiece.vocab").unlink()


parser = argparse.ArgumentParser()
parser.add_argument("--merges", metavar="BPE_GZ")
parser.add_argument("--train", action="store_true")
args = parser.parse_args()
if args.merges:
    make_merges(args.merges)
elif args.train:
    train()
else:
    make_prompts()

"""What is rendered: sizes, methods, prompts, and how many of each."""
import numpy as np

from pictures import scenes

# name, width and height in px, of a model trained at 256
SIZES = {"1x": (256, 256), "2x": (512, 512), "3x": (768, 768), "4x": (1024, 1024), "panorama": (768, 256)}
# The trained length, where it is not the model's own: it has seen pictures of this height up to 512 px wide.
BASE_RESOLUTION = {"panorama": 512}

METHODS = {
    "base": "{method: base}",
    "pi": "{method: pi, dype: false}",
    "ntk": "{method: ntk, dype: false}",
    "yarn": "{method: yarn, dype: false}",
    "time-aware": "{method: time-aware}",
    "dy-pi": "{method: pi, dype: true}",
    "dy-ntk": "{method: ntk, dype: true}",
    "dy-yarn": "{method: yarn, dype: true}",
}

# steps of a render; prompts per method and size; true pictures per size (spectra) and for layouts; pictures, noise levels of
# the loss; pictures of the adherence check. Seconds per picture on two free cores: 1x 0.7, panorama 2, 2x 3, 3x 9, 4x 25.
BUDGETS = {
    "full": dict(steps=20, prompts={"1x": 64, "2x": 32, "3x": 12, "4x": 6, "panorama": 32}, truth=24, layouts=256,
                 loss={"2x": 24, "3x": 8, "panorama": 16}, levels=10, adherence=200),
    "small": dict(steps=14, prompts={"1x": 16, "2x": 16, "3x": 6, "4x": 3, "panorama": 12}, truth=8, layouts=128,
                  loss={"2x": 6, "3x": 2, "panorama": 4}, levels=10, adherence=100),
    "smoke": dict(steps=14, prompts={"1x": 16, "2x": 6, "3x": 3, "panorama": 6}, truth=8, layouts=128,
                  loss={"2x": 6}, levels=10, adherence=50),
}

GUIDANCE = 3


def attributes(s):
    """What a picture of this scene is asked to have."""
    side, height = place(s["sun"][0] / s["aspect"], s["sun"][1])
    return dict(
        time=s["time"], ground=s["ground"], peaks="snowy" if s["snow"] else "rocky", sky="cloudy" if s["clouds"] else "clear",
        disc="moon" if s["time"] == "night" else "sun", side=side, height=height, mood=s["mood"])


VALUES = dict(time=scenes.TIMES, ground=scenes.GROUNDS, peaks=["snowy", "rocky"], sky=["cloudy", "clear"], disc=["sun", "moon"],
              side=["left", "center", "right"], height=["high", "middle", "low"], mood=scenes.MOODS)


def place(x, y):
    """Side and height of a disc at x, y (parts of the picture), as captions tell them apart."""
    side, height = scenes.place(x, y)
    return VALUES["side"][side], VALUES["height"][height]


def prompt(a):
    """A training caption with nothing left out."""
    where = "in the center" if a["side"] == "center" else "on the " + a["side"]
    height = "" if a["height"] == "middle" else a["height"] + " "
    return (f"a {a['mood']} mountain landscape {scenes.WORDS[a['time']][0]} with {scenes.WORDS[a['ground']][0]}, {a['peaks']} peaks and "
            f"a {a['sky']} sky, the {a['disc']} {height}{where}")


def scene(k, aspect=1.0, salt=0):
    """Scene number k of those that prompts are taken from; other salts are other sets."""
    return scenes.sample_scene(np.random.default_rng([4100 + salt, k]), aspect)


def defaults(size, text):
    """The defaults of a job: these, the size, and its trained length."""
    w, h = SIZES[size]
    more = f", position: {{base_resolution: {BASE_RESOLUTION[size]}}}" if size in BASE_RESOLUTION else ""
    return f"defaults: {{{text}, width: {w}, height: {h}{more}}}"


def job(model, size, prompts, steps, methods):
    """Job file: every method on the same prompts and seeds."""
    w, h = SIZES[size]
    lines = [f"model: {model}", f"output: '{size}/{{name}}.png'", "precision: bf16",
             defaults(size, f"steps: {steps}, guidance: {GUIDANCE}"), "pictures:"]
    for k in range(prompts):
        text = prompt(attributes(scene(k, w / h)))
        lines += [f"  - {{name: {m}.{k:03d}, seed: {k}, position: {METHODS[m]}, prompt: \"{text}\"}}" for m in methods]
    return "\n".join(lines) + "\n"


# After the paper's tables 5 and 6: other clocks of Dy-NTK, parts of Dy-YaRN. Told by their loss, which is cheap.
ABLATIONS = {
    "dy-ntk, t^0.5": "{method: ntk, dype: true, variant: ablate-exp, lambda_s: 2, lambda_t: 0.5}",
    "dy-ntk, t": "{method: ntk, dype: true, variant: ablate-exp, lambda_s: 2, lambda_t: 1}",
    "dy-ntk, t^2": "{method: ntk, dype: true, variant: ablate-exp, lambda_s: 2, lambda_t: 2}",
    "dy-ntk, t^3": "{method: ntk, dype: true, variant: ablate-exp, lambda_s: 2, lambda_t: 3}",
    "dy-ntk, lambda_s 1": "{method: ntk, dype: true, variant: ablate-exp, lambda_s: 1, lambda_t: 2}",
    "dy-ntk, times s": "{method: ntk, dype: true, variant: ablate-mult}",
    "dy-yarn, ntk only": "{method: yarn, dype: true, variant: ablate-ntk-only}",
    "dy-yarn, by parts": "{method: yarn, dype: true}",
    "dy-yarn, both": "{method: yarn, dype: true, variant: ablate-both}",
    "dy-yarn, v1": "{method: yarn, dype: true, variant: v1}",
    "dy-yarn, t^0.5": "{method: yarn, dype: true, lambda_t: 0.5}",
    "dy-yarn, t": "{method: yarn, dype: true, lambda_t: 1}",
}


def loss_job(model, size, count, levels, positions):
    """Job file of --loss: clean latents of true pictures, even noise levels; names are M<method>.<picture>."""
    w, h = SIZES[size]
    lines = [f"model: {model}", "output: '{name}.png'", "precision: bf16",
             defaults(size, f"steps: {levels}, shift: 0, guidance: 1, noise: counter"), "pictures:"]
    for k in range(count):
        text = prompt(attributes(scene(k, w / h, salt=3)))
        lines += [f"  - {{name: m{i:02d}.{k:03d}, seed: {k}, position: {p}, latents_in: clean/{size}.{k:03d}.safetensors, prompt: \"{text}\"}}"
                  for i, p in enumerate(positions.values())]
    return "\n".join(lines) + "\n"

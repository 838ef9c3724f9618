"""Make the tokenizer of the small models: `python -m benchmarks.make_tokenizer`.

Byte-level BPE (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2) trained on
sentences of tabletop manipulation that this file writes. Every common word of the domain becomes one token; any other
word, in any script, is split into smaller pieces down to bytes, so every instruction can be encoded. How a sentence is
typed does not matter: case, typographic quotation marks and dashes, a full stop at its end.

No sentence here is taken from a suite's paraphrases, trained or held out: only the pieces of words are learned.
"""

from __future__ import annotations

import random

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from vla_model.inputs.processor import DEFAULT_TOKENIZER

PAD, BEGIN = "<pad>", "<begin>"

_VOCAB_SIZE = 2048
_SENTENCES = 40_000

_COLOURS = """red green blue yellow orange purple pink brown black white gray grey cyan magenta turquoise violet teal
crimson scarlet ruby navy azure emerald lime amber golden silver maroon beige tan olive indigo lavender coral salmon
ivory dark light bright pale coloured colored striped spotted plain shiny matte wooden metal metallic plastic glass
rubber
""".split()
_THINGS = """cube block box ball sphere cylinder can tube cone pyramid disc disk ring plate bowl cup mug bottle jar pot
pan lid tray basket bin container crate drawer door cabinet cupboard shelf rack handle knob dial switch lever button
valve tap faucet hammer screwdriver wrench peg plug socket hole slot nut bolt screw key book pen pencil marker eraser
spoon fork knife spatula sponge towel cloth brush toy car duck bear apple banana orange lemon pear carrot tomato onion
bread egg object item thing piece brick bar stick rod puck coin die token tile wedge arch triangle square rectangle
circle oval hexagon star prism capsule wheel gear rope string cable bag window oven microwave stove burner kettle
toaster coffee machine
""".split()
_PLACES = """table desk counter surface floor zone area region target goal pad mat marker spot place position corner
edge centre center middle side line border circle square bowl tray basket bin box drawer shelf robot arm gripper base
wall
""".split()
_VERBS = """push pull move slide shove drag nudge tap poke touch reach press hit strike lift raise pick grab grasp grip
take hold carry bring place put set lay drop release leave throw toss stack pile balance sort arrange align gather
collect sweep wipe clean turn rotate twist spin flip tilt tip pour open close shut unlatch hoist insert plug unplug
remove extract withdraw empty fill hang hook cover uncover lower swing roll transfer deliver deposit store return fetch
find point move go approach avoid keep knock push bump squeeze fold unfold screw unscrew lock unlock switch toggle dial
adjust reset line separate group tidy guide steer position relocate shift
""".split()
_RELATIONS = """in into inside on onto upon over above under below beneath beside behind between near by at to toward
towards against from off away across around along through next_to close_to on_top_of in_front_of to_the_left_of
to_the_right_of left_of right_of out_of far_from
""".split()
_MODIFIERS = """left right front back top bottom upper lower first second third fourth last other same nearest closest
farthest big small large little tiny tall short long wide narrow thick thin heavy full open closed
""".split()
_ADVERBS = """slowly gently carefully quickly firmly now again please completely fully halfway clockwise
counterclockwise counter-clockwise anticlockwise up down forward forwards backward backwards left right upward downward
sideways straight together apart once twice ahead here there back inwards outwards inward outward
""".split()
_NUMBERS = """one two three four five six seven eight nine ten twenty thirty forty sixty ninety half quarter 0 1 2 3 4 5
6 7 8 9 10 15 20 30 45 60 90 180
""".split()
_JOINS = """and then until before after while so that with without using it is are them its your you all every each both
any only not do stop wait done don't which one where there here this these those of a an the i want would like can could
robot task should must make sure let be has have get until when if
""".split()
_UNITS = "degrees cm centimetres centimeters mm millimetres meters turn turns step steps way times".split()

_NORMALIZER = normalizers.Sequence(
    [
        normalizers.NFKC(),
        normalizers.Lowercase(),
        normalizers.Replace(Regex(r"[\x{2018}\x{2019}\x{201b}\x{2032}`]"), "'"),
        normalizers.Replace(Regex(r'["\p{Pi}\p{Pf}\x{201e}\x{2033}]'), ""),
        normalizers.Replace(Regex(r"[\p{Pd}\x{2212}]"), "-"),
        normalizers.Replace(Regex(r"(?<=[a-z])-(?=[a-z])"), " "),
        normalizers.Replace(Regex(r"[.!]+\s*$"), ""),
        normalizers.Strip(),
    ]
)
"""Gives sentences that differ only in how they are typed the same tokens."""


def sentences(count: int, seed: int = 0) -> list[str]:
    """`count` instruction-like sentences."""
    rng = random.Random(seed)
    pick = rng.choice

    def thing() -> str:
        words = [pick(["the", "the", "the", "a", "that", "this", "every"])]
        words += [pick(_MODIFIERS)] if rng.random() < 0.25 else []
        words += [pick(_COLOURS)] if rng.random() < 0.7 else []
        words += [pick(_THINGS) + pick(["", "", "s"])]
        words += ["with the", pick(_COLOURS), pick(_THINGS)] if rng.random() < 0.1 else []
        return " ".join(words)

    def place() -> str:
        return f"{pick(_RELATIONS).replace('_', ' ')} the {pick(_MODIFIERS + _COLOURS)} {pick(_PLACES + _THINGS)}"

    templates = [
        lambda: f"{pick(_VERBS)} {thing()}",
        lambda: f"{pick(_VERBS)} {thing()} {place()}",
        lambda: f"{pick(_VERBS)} {thing()} {pick(_ADVERBS)}",
        lambda: f"{pick(_VERBS)} {pick(_ADVERBS)} {thing()} {pick(_JOINS)} {pick(_VERBS)} it {place()}",
        lambda: f"{pick(_VERBS)} {thing()} by {pick(_NUMBERS)} {pick(_UNITS)} {pick(_ADVERBS)}",
        lambda: f"{pick(_JOINS)} {pick(_JOINS)} {pick(_VERBS)} {thing()} {pick(_JOINS)} {thing()}",
        lambda: f"{pick(_VERBS)} {thing()}, then {pick(_VERBS)} {thing()} {place()}.",
    ]
    return [pick(templates)() for _ in range(count)]


def make_tokenizer() -> Tokenizer:
    """A tokenizer that normalizes what is typed and puts `<begin>` in front of every text; `<pad>` is id 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    # A space in front makes a word the same token at the start of a sentence and within it.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCAB_SIZE,
        special_tokens=[PAD, BEGIN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences(_SENTENCES), trainer)
    tokenizer.normalizer = _NORMALIZER  # after training, so that changing it leaves a trained policy's ids as they are
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))]
    )
    return tokenizer


def main() -> None:
    """Write the tokenizer to the package."""
    make_tokenizer().save(str(DEFAULT_TOKENIZER), pretty=False)
    print(f"{DEFAULT_TOKENIZER.name}: {DEFAULT_TOKENIZER.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

"""The language of the tiny model: its sums, how they are asked and answered, and which are held out.

Pure: no torch, no files, no clock; every random choice comes from the caller's generator.
"""

from typing import NamedTuple

SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>", "<user>", "<assistant>", "<think>", "</think>"]
CHARACTERS = [chr(code) for code in range(32, 127)] + ["\n"]
TOKEN_ID = {token: i for i, token in enumerate(SPECIAL + CHARACTERS)}
TOKEN = {i: token for token, i in TOKEN_ID.items()}
PAD, BOS, EOS, UNK, USER, ASSISTANT, THINK, END_THINK = range(len(SPECIAL))

LARGEST = 999

PHRASINGS = [
    "What is {a}+{b}?",
    "What is {a} + {b}?",
    "What's {a}+{b}?",
    "What is the sum of {a} and {b}?",
    "What is {a} plus {b}?",
    "How much is {a}+{b}?",
    "How much is {a} plus {b}?",
    "Add {a} and {b}.",
    "Please add {a} and {b}.",
    "Compute {a} + {b}.",
    "Calculate {a}+{b}",
    "{a}+{b}",
    "{a} + {b}",
    "{a}+{b}=?",
    "{a} + {b} = ?",
    "{a} plus {b}",
]


class Sum(NamedTuple):
    a: int
    b: int


def fnv1a_64(text: bytes) -> int:
    """FNV-1a, 64 bits: offset basis 0xcbf29ce484222325, prime 0x100000001b3."""
    value = 0xCBF29CE484222325
    for byte in text:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def held_out(pair: Sum) -> bool:
    """Whether a pair is kept from training: about one in eleven, in both orders.

    The divisor is odd because the lowest bit of FNV-1a is only the parity of the text's bits.

    >>> [tuple(pair) for pair in held_out_pairs()[:5]]
    [(0, 1), (0, 12), (0, 20), (0, 32), (0, 39)]
    """
    low, high = sorted(pair)
    return fnv1a_64(f"{low}+{high}".encode("ascii")) % 11 == 0


def held_out_pairs() -> list[Sum]:
    """Every held-out pair with a <= b, in ascending order."""
    pairs = (Sum(a, b) for a in range(LARGEST + 1) for b in range(a, LARGEST + 1))
    return [pair for pair in pairs if held_out(pair)]


def reasoning(pair: Sum) -> str:
    """Digit by digit from the right: `x+y+carry=tt, …`, then the whole number on a line of its own.

    >>> reasoning(Sum(17, 25))
    '7+5+0=12, 1+2+1=04\\n42'
    """
    left, right = str(pair.a)[::-1], str(pair.b)[::-1]
    carry, steps = 0, []
    for i in range(max(len(left), len(right))):
        x = int(left[i]) if i < len(left) else 0
        y = int(right[i]) if i < len(right) else 0
        total = x + y + carry
        steps.append(f"{x}+{y}+{carry}={total:02d}")
        carry = total // 10
    return ", ".join(steps) + f"\n{pair.a + pair.b}"


def encode(text: str) -> list[int]:
    """One token a character; a character outside printable ASCII is `<unk>`."""
    return [TOKEN_ID.get(character, UNK) for character in text]


def prompt_ids(question: str) -> list[int]:
    """What the chat template makes of one user message."""
    return [BOS, USER, *encode(question), ASSISTANT]


def completion_ids(pair: Sum) -> list[int]:
    """What the model is to say after `prompt_ids`."""
    answer = encode(str(pair.a + pair.b))
    return [THINK, *encode(reasoning(pair)), END_THINK, *answer, EOS]


def answer_of(completion: list[int]) -> str | None:
    """The text between `</think>` and `<eos>`; None where either is missing."""
    if END_THINK not in completion or EOS not in completion:
        return None
    start, end = completion.index(END_THINK), completion.index(EOS)
    return "".join(TOKEN[i] for i in completion[start + 1 : end])


def random_pair(rng, digits) -> Sum:
    """Two numbers, each of up to as many digits as one entry of `digits` says."""
    return Sum(rng.randrange(10 ** rng.choice(digits)), rng.randrange(10 ** rng.choice(digits)))


def random_question(rng, pair: Sum) -> str:
    """One of the phrasings, sometimes without capitals."""
    question = rng.choice(PHRASINGS).format(a=pair.a, b=pair.b)
    return question.lower() if rng.random() < 0.25 else question


def training_example(rng, digits) -> tuple[list[int], list[int]]:
    """(prompt, completion) of a sum that is not held out."""
    pair = random_pair(rng, digits)
    while held_out(pair):
        pair = random_pair(rng, digits)
    return prompt_ids(random_question(rng, pair)), completion_ids(pair)

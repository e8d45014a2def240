"""The table of contents: which chapters there are, and the question that each begins with."""

from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from common.files import ROOT

LEARN = ROOT / "learn"


@dataclass(frozen=True)
class Chapter:
    """One chapter: its number, title and question, and where its script and its exercise lie."""

    number: int
    title: str
    question: str
    name: str  # of the script in learn/chapters/, without .py

    @property
    def script(self) -> Path:
        return LEARN / "chapters" / f"{self.name}.py"

    @property
    def exercise(self) -> Path:
        return LEARN / "exercises" / f"chapter_{self.number}.py"


CHAPTERS = [
    Chapter(1, "Text to ids", "A model computes with numbers. How does a post become numbers, in any language?",
            "chapter_1_text_to_ids"),
    Chapter(2, "RoPE and the llama3 scaling",
            "Attention compares words and does not see their order. How does a model know who bites whom?",
            "chapter_2_rope"),
    Chapter(3, "Attention with shared key/value heads",
            "How does a word look at the others, and why do several heads share one memory?", "chapter_3_attention"),
    Chapter(4, "The block",
            "What does one layer do with a token's vector, and why does nothing blow up on the way?",
            "chapter_4_block"),
    Chapter(5, "Loading a public checkpoint",
            "A checkpoint is a file of bytes. How do millions of numbers find their places in a model?",
            "chapter_5_loading"),
    Chapter(6, "NF4 by hand", "A weight takes 16 bits. What is lost if it is stored in four?", "chapter_6_nf4"),
    Chapter(7, "LoRA and its gradient",
            "How can a model learn if its weights may not change? And how few numbers are enough?", "chapter_7_lora"),
    Chapter(8, "The shared prefix and the label head",
            "All posts come with the same instruction. Why compute it more than once? And why score 44,000 pieces to "
            "choose a label?", "chapter_8_prefix"),
    Chapter(9, "Training, evaluation and what an interval is",
            "Has the model learned anything? And how sure can one be?", "chapter_9_training"),
]


def find_chapter(number: int) -> Chapter:
    """The chapter with this number. Raises `UserError` where there is none."""
    for chapter in CHAPTERS:
        if chapter.number == number:
            return chapter
    numbers = ", ".join(str(chapter.number) for chapter in CHAPTERS)
    raise UserError(f"chapter {number}: there is none; the chapters are {numbers}")

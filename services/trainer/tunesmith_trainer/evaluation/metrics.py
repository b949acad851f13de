"""The metrics of a report: name, title, unit, which way is better, and what each says."""

from __future__ import annotations

from collections.abc import Mapping

from tunesmith.domain.models import MetricInfo
from tunesmith.recipes.base import Recipe

METRIC_DESCRIPTIONS: Mapping[str, MetricInfo] = {
    "valid_share": MetricInfo(
        "Valid format", "share", "higher", "Answers that parse in the trained format and were not cut off."
    ),
    "cut_off_share": MetricInfo("Cut off", "share", "lower", "Answers that reached the token limit before their end."),
    "novel_share": MetricInfo(
        "Novel", "share", "higher", "Valid answers that are not, as they stand, answers of the training set."
    ),
    "fuzzy_novel_share": MetricInfo(
        "Novel beyond spelling",
        "share",
        "higher",
        "Valid answers that are no near-twin of a training answer: equal without accents, spaces and punctuation, or "
        "of very similar letters.",
    ),
    "catalogue_novel_share": MetricInfo(
        "Novel to the catalogue", "share", "higher", "Valid answers that the reference catalogue does not list."
    ),
    "distinct_share": MetricInfo(
        "Distinct", "share", "higher", "Valid answers that were not given before in the same sample."
    ),
    "distinct_words": MetricInfo(
        "Distinct words (EAD)",
        "ratio",
        "higher",
        "Different words over the number expected when as many are drawn evenly from the training vocabulary "
        "(Liu et al. 2022).",
    ),
    "compression_ratio": MetricInfo(
        "Compression ratio", "ratio", "lower", "Bytes of all valid answers over their zlib-compressed bytes."
    ),
    "self_repetition_share": MetricInfo(
        "Self-repetition",
        "share",
        "lower",
        "Valid answers that share a run of four words (a shorter answer: all of it) with another one.",
    ),
    "repeated_word_share": MetricInfo(
        "Repeated words",
        "share",
        "lower",
        "Content words that stood in the same answer before, of all its content words.",
    ),
    "top_word_share": MetricInfo(
        "Top word", "share", "lower", "Valid answers that hold the commonest content word of the sample."
    ),
    "top_word_share_over_data": MetricInfo(
        "Top word against data",
        "ratio",
        "lower",
        "The top word's share over the share that the training data's own top word has.",
    ),
    "word_entropy": MetricInfo(
        "Word entropy", "ratio", "higher", "Entropy of the content words over the most that as many words can have."
    ),
    "copied_chars": MetricInfo(
        "Longest copied span", "characters", "lower", "Mean length of the longest run shared with one training answer."
    ),
    "copied_share": MetricInfo(
        "Copied part", "share", "lower", "Mean of the longest run shared with one training answer over the length."
    ),
    "long_copy_share": MetricInfo(
        "Long copies",
        "share",
        "lower",
        "Valid answers that share 160 characters or more with a training answer (the limit of the German UrhDaG).",
    ),
    "leaked_share": MetricInfo(
        "Leaked",
        "share",
        "lower",
        "Held-out rows that the run was trained on, or a near-twin of them: its other figures would flatter it.",
    ),
    "bits_per_char": MetricInfo(
        "Loss on held-out answers",
        "bits",
        "lower",
        "Bits per character of held-out answers with their end, given their prompts.",
    ),
    "answer_bits_per_char": MetricInfo(
        "Loss without the end",
        "bits",
        "lower",
        "Bits per character of the bare held-out answers: fair to a base that never saw the trained end marker.",
    ),
    "bits_per_char_over_five_gram": MetricInfo(
        "Loss over a 5-gram",
        "bits",
        "lower",
        "Bits per character beyond those of a character 5-gram of the training answers, on the same rows.",
    ),
}
"""Every metric that all recipes share, by name, in the order in which they are shown."""

ANCHOR_DESCRIPTIONS: Mapping[str, str] = {
    "five_gram_bits_per_char": "bits per character of the held-out answers under a character 5-gram",
    "heldout_rows": "held-out rows measured",
    "heldout_rows_seen_by_base": "held-out rows left out because the base model's own text holds them or a near-twin",
    "top_word_share_of_data": "share of training answers that hold the training data's commonest content word",
    "word_entropy_of_data": "word entropy of equally many training answers",
    "compression_ratio_of_data": "compression ratio of equally many training answers",
    "distinct_words_of_data": "distinct words (EAD) of equally many training answers",
    "copied_share_of_heldout": "mean copied part of held-out answers: what mere likeness of kind gives",
}
"""What each model-free reference value of a report is."""


def difference_name(metric: str, other: str) -> str:
    """The candidate's metric that holds the paired difference of `metric` from the subject `other`."""
    return f"{metric}_minus_{other}"


def described(recipe: Recipe) -> Mapping[str, MetricInfo]:
    """Every metric of a recipe's reports: the shared ones, then its own."""
    return {**METRIC_DESCRIPTIONS, **recipe.metrics}


def heldout_anchor(metric: str) -> str:
    """The anchor that holds what a recipe's own metric is for the held-out answers themselves."""
    return f"{metric}_of_heldout"


def formatted(value: float, info: MetricInfo | None, *, signed: bool = False) -> str:
    """A value with its unit, as people read it; without a description, as a bare number."""
    sign = "+" if signed else ""
    match info.unit if info else "ratio":
        case "share":
            return f"{100 * value:{sign}.1f} {'points' if signed else '%'}"
        case "bits":
            return f"{value:{sign}.2f} bits"
        case "characters":
            return f"{value:{sign}.1f} chars"
        case "count":
            return f"{value:{sign}.1f}"
        case _:
            return f"{value:{sign}.2f}"

"""hub.lora.core.report: what the figures say in words."""

from hub.lora.core.evaluate import Scores
from hub.lora.core.report import paired_report

WORDS = {"base": "the base alone", "start": "the start", "lora": "plain LoRA"}


def scores(right: int, of: int) -> Scores:
    """So many right answers first, so that differences are within pairs."""
    return Scores({"exact_match": [float(index < right) for index in range(of)], "target_loss": [1.0] * of}, [""] * of)


def test_a_verdict_claims_only_what_the_interval_and_the_number_of_examples_allow() -> None:
    for of, claims in ((100, True), (99, False)):
        arms = {"base": scores(10, of), "start": scores(90, of), "module": scores(50, of), "lora": scores(51, of)}
        report = paired_report(arms, "module", WORDS, {}, seed=0)
        assert [line.against for line in report.comparisons] == ["base", "start", "lora"]
        said = [
            f"better than {WORDS['base']} (+0.4",
            f"worse than {WORDS['start']} (-0.4",
            f"not told apart from {WORDS['lora']} (-0.01",
        ]
        assert all((words in report.verdict) == claims for words in said)
        assert report.verdict.startswith("No claim: 99 held-out examples are too few") != claims

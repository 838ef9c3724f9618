"""The field's words: what was renamed stays renamed, in code, messages and docs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

REPLACED = {
    r"chunk[_-]length": "chunk_size",
    r"execute[_-]steps": "n_action_steps",
    r"(?<![A-Za-z])[Ff]ilm(s|ed|ing)?(?![A-Za-z])": "video",
    r"(?<![A-Za-z])[Vv]erdicts?(?![A-Za-z])": "success flag",
    r"anchor_(weight|log_prob)|loss/anchor": "reference-policy KL",
    r"\bCredit(ed)?\b|\w_credit\b": "advantages, rollout batch",
    r"\bLastingNoise\b": "CorrelatedNoise",
    r"\b(chunk|batch|part|trajectory|first|second|t)\.drawn\b|\bDraw\(|draw_(shifts|light|action_noise)": "sampled",
    r"\bSeenTokens\b": "TokenHistory",
    r"\brun_(at_once|one_by_one)\b": "run_grouped, run_per_expert",
    r"\bunasked\b": "automatically",
    r"\bnot known here\b": "not supported",
    r"\bfrom nothing\b": "from scratch",
    r"\brenewals?\b|\bRenewalConfig\b": "shrink and perturb",
    r"(?<![A-Za-z])offending": "bad batch",
    r"\btold: list\[dict\[str, float": "metrics",
    r"\bnobody imitates\b": "auxiliary losses only",
    r"\bmade better (on|by)\b": "fine-tuned",
    r"\bjudges: Workers\b|\b_crew\b": "evaluators, worker pool",
    r"\bby heart\b": "overfits",
    r"\bredrawn\b": "resampled",
    r"\bfront door\b": "facade, public API",
    r"\bdecisions took\b": "inferences",
    r"\bsomebody's own\b|\bnone of ours\b": "of the user",
    r"\bdraw_(look|pose)\b": "sample_look, sample_pose",
    r"\bdraw_ended\b|\bDrawer\(": "render_ended, FrameRenderer",
    r"\blooks from elsewhere\b": "has another pose",
    r"\bbegan otherwise\b": "has another first observation",
    r"\bplace without folders\b": "cannot hold folders",
    r"\bcould not make its (world|policy)\b": "could not create",
    r"\btake_back\b|\b_Inbox\b|\b_any_sound\b|\bTableHands\b": "requeue, _SpecStream, _any_valid, ExternalForces",
    r"\bpassed over\b": "ignored",
    r"\bleft as it is\b": "not overwritten",
    r"\b[Hh]e\b|\b[Hh]is\b|\b[Hh]im\b|\b[Hh]imself\b": "they",
    r"\btold\b(?= = | =$|\[|\.|, )": "metadata, instructions, results: what it is",
    r"\b_?hear\b|\b_?heard\b": "receive",
    r"\bdraw_episode\b|\bDrawn\b|\bdraws of the bootstrap\b": "sample_episode, SampledEpisodes, bootstrap samples",
    r"\bmisfits?\b": "mismatches",
    r"\b[Rr]emarks?\b|\bremark_on\b": "warnings",
    r"\b(with|import) among\b": "gathering",
    r"\bsuites[./]given\b": "envs.suites.returned",
    r"\bimitated\b": "cloned",
    r"--seen\b|\bseen=|failed ?==? ?\"seen\"|\bsee[_-]failures\b": "auxiliary",
    r"\"(learns|adapts|rests)\"": "trained, lora, frozen",
    r"\bnoise that lasts\b": "correlated noise",
    r"\bnever in what is taught\b": "in executed actions, never in labels",
    r"\b(other|more) work on the machine\b|\btimes say nothing\b": "under other load",
}
"""Pattern of a word: what is said in its place."""

KEPT = {
    r"vla_model/vision/.*|tests/vla_model/vision/.*|vla_model/model\.py": {"film"},  # FiLM, Perez et al. 2018
    r"vla_model/files/old_names\.py|tests/vla_model/files/test_old_names\.py|vla_model/config\.py": {
        "chunk",
        "execute",
        "film",
        "anchor",
        "renewal",
        "--seen",
        "see",
    },
    r"tests/test_words\.py": {""},
    r"docs/results/policy_gradients\.md": {"--seen"},  # the option of a run of then
}
"""Pattern of a file: beginnings of words that it may use: the names of before, where they are read."""


def files() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py", "*.md", "*.html", "*.sh", "Makefile"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout, so which files are ours is not known")
    return [file for file in listed.stdout.splitlines() if (ROOT / file).is_file()]


def found_in(file: str, text: str, pattern: str) -> list[str]:
    """Every line of a file in which a replaced word stands."""
    kept = {word for place, words in KEPT.items() if re.fullmatch(place, file) for word in words}
    return [
        f"{file}:{number} {match.group()}: {line.strip()}"
        for number, line in enumerate(text.splitlines(), 1)
        for match in re.finditer(pattern, line)
        if not any(match.group().lower().startswith(word) for word in kept)
    ]


@pytest.mark.parametrize("pattern", REPLACED)
def test_replaced_words_stand_only_where_old_files_and_options_are_read(pattern: str) -> None:
    found = [line for file in files() for line in found_in(file, (ROOT / file).read_text(), pattern)]
    assert not found, f"say {REPLACED[pattern]}:\n" + "\n".join(found)


def test_a_replaced_word_is_found_and_a_kept_one_is_not() -> None:
    assert found_in("agent/a.py", "x = chunk_length", r"chunk[_-]length") == [
        "agent/a.py:1 chunk_length: x = chunk_length"
    ]
    assert not found_in("vla_model/files/old_names.py", '"chunk_length"', r"chunk[_-]length")

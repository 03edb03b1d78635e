"""The report as one HTML page that needs nothing else: tables, histograms, spectrograms, players."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import NamedTuple

import soundfile as sf

from univnet.metrics.base import Measure
from univnet.metrics.report.pictures import histogram, spectrogram
from univnet.metrics.report.results import NOTHING, Results, notes
from univnet.metrics.report.statistics import INTERVALS, Estimate, Estimates

WORST = 10
BUDGET = 19_000_000  # bytes for sound and pictures, as base64; the page then stays below 20 MB
_PICTURE = 15_000  # bytes of a spectrogram, about
COLORS = ("#0b7a75", "#d1495b", "#3d5a98", "#c98a00", "#7b4b94", "#4f772d", "#5c5c5c", "#b5651d")
_LOSSLESS, _LOSSY = "flac", "ogg"


class Clip(NamedTuple):
    """What is heard and seen of one contestant's version of an utterance, as base64."""

    sound: str
    picture: str


def page(results: Results, embed: int = 20) -> str:
    """Return the page.

    Sound is embedded for the ten worst utterances and others spread over the rest. It is FLAC; Ogg Vorbis where the
    page would be more than 20 MB; and of fewer utterances where it still would be.

    Args:
        results: what was measured; its rows name the audio files.
        embed: utterances to embed at most.
    """
    chosen = _chosen(results.worst_first, embed)
    codec, clips = _clips(results, chosen)
    chosen = [each for each in chosen if each in {utterance for utterance, _ in clips}]
    colors = dict(zip(results.contestants, COLORS * (len(results.contestants) // len(COLORS) + 1), strict=False))
    style, script = (files(__package__).joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    how = {
        _LOSSLESS: "lossless (FLAC)",
        _LOSSY: "in Ogg Vorbis, to keep the page small; the metrics are of the originals",
    }
    heard = f"Sound is {how[codec]}. " if chosen else ""
    sections = [
        _section("Means", f"<p>{escape(INTERVALS)}.</p>{_summary(results, results.summary, colors)}"),
        *(
            [_section("Per speaker", "".join(_speaker(results, name, colors) for name in results.speakers))]
            if len(results.speakers) > 1
            else []
        ),
        _section("Paired differences", _differences(results)),
        _section("Distributions", _histograms(results, colors)),
        _section(
            "Listen",
            f"<p>{heard}Ordered by {escape(results.ranking.title)} of {escape(results.contestants[0])}, worst first; "
            f"{len(chosen)} of {len(results.utterances)} utterances. Starting another version of an utterance goes on "
            "where the last one stopped. Spectrograms: 0 Hz to half the sample rate, 80 dB, on the recording's scale."
            "</p>" + "".join(_utterance(results, each, clips, codec, colors) for each in chosen),
        ),
        _section("All utterances", _all(results)),
        _section("Metrics", _metrics(results)),
    ]
    about = "".join(f"<li>{escape(note)}</li>" for note in [_what(results), *notes(results)])
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; media-src data:; '
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>Vocoders compared</title><style>{style}</style></head><body><h1>Vocoders compared</h1>"
        f"<ul>{about}</ul>{''.join(sections)}<script>{script}</script></body></html>\n"
    )


def _what(results: Results) -> str:
    return f"{len(results.utterances)} utterances, compared at {results.sample_rate} Hz"


def _chosen(ordered: Sequence[str], embed: int) -> list[str]:
    worst, rest = list(ordered[:WORST]), ordered[WORST:]
    more = min(max(embed - WORST, 0), len(rest))
    return (worst + [rest[(2 * place + 1) * len(rest) // (2 * more)] for place in range(more)])[:embed]


def _clips(results: Results, chosen: Sequence[str]) -> tuple[str, dict[tuple[str, str], Clip]]:
    """Return the codec, and the clips of as many of the chosen utterances as the budget holds."""
    sizes = [row.audio.stat().st_size for key, row in results.by_place.items() if key[0] in chosen]
    codec = _LOSSLESS if sum(sizes) * 4 / 3 <= BUDGET - _PICTURE * len(sizes) else _LOSSY
    clips: dict[tuple[str, str], Clip] = {}
    left = BUDGET
    for utterance in chosen:
        its = _clips_of(results, utterance, codec)
        left -= sum(len(clip.sound) + len(clip.picture) for clip in its.values())
        if left < 0:
            break
        clips |= its
    return codec, clips


def _clips_of(results: Results, utterance: str, codec: str) -> dict[tuple[str, str], Clip]:
    clips, loudest = {}, None
    for name in results.names:
        if row := results.by_place.get((utterance, name)):
            audio, rate = sf.read(row.audio, dtype="float32")
            picture, loudest = spectrogram(audio, rate, loudest)
            sound = row.audio.read_bytes()
            if codec == _LOSSY:
                written = io.BytesIO()
                sf.write(written, audio, rate, format="OGG", subtype="VORBIS")
                sound = written.getvalue()
            clips[utterance, name] = Clip(*(base64.b64encode(each).decode() for each in (sound, picture)))
    return clips


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _heads(measures: Sequence[Measure], *first: str) -> str:
    heads = "".join(f"<th>{escape(each)}</th>" for each in first)
    for each in measures:
        arrow = "↑" if each.better == "higher" else "↓"
        heads += f'<th title="{escape(each.source)}">{escape(each.title)}&nbsp;{arrow}</th>'
    return f"<thead><tr>{heads}</tr></thead>"


def _name(name: str, colors: Mapping[str, str]) -> str:
    color = colors.get(name, "transparent")
    return f'<th scope="row"><i style="background:{color}"></i>{escape(name)}</th>'


def _summary(results: Results, summary: Mapping[str, Estimates], colors: Mapping[str, str]) -> str:
    whole = max((each.count for line in summary.values() for each in line.values() if each), default=0)
    best = {}
    for each in results.measures:
        means = {name: found.mean for name in results.contestants if (found := summary[name][each.name])}
        if len(means) > 1:
            best[each.name] = (max if each.better == "higher" else min)(means, key=means.__getitem__)
    lines = ""
    for name, line in summary.items():
        if any(line.values()):
            cells = (
                f"<td{' class=best' * (best.get(each.name) == name)}>{_cell(line[each.name], each, whole)}</td>"
                for each in results.measures
            )
            lines += f"<tr>{_name(name, colors)}{''.join(cells)}</tr>"
    return f"<div class=wide><table>{_heads(results.measures, '')}<tbody>{lines}</tbody></table></div>"


def _cell(estimate: Estimate | None, measure: Measure, whole: int | None = None) -> str:
    if estimate is None:
        return NOTHING
    mean, low, high = (f"{each:.{measure.digits}f}" for each in (estimate.mean, estimate.low, estimate.high))
    count = f" of {estimate.count}" if whole not in (None, estimate.count) else ""
    return f"{mean}<small>{low} to {high}{count}</small>"


def _speaker(results: Results, speaker: str, colors: Mapping[str, str]) -> str:
    count = len({row.utterance for row in results.rows if row.speaker == speaker})
    table = _summary(results, results.speakers[speaker], colors)
    return f"<h3>{escape(speaker)} <small>{count} utterances</small></h3>{table}"


def _differences(results: Results) -> str:
    if not results.differences:
        return "<p>There is one contestant alone.</p>"
    lines = ""
    for (first, second), line in results.differences.items():
        cells = ""
        for each in results.measures:
            found = line[each.name]
            kind = ""
            if found and (found.low > 0 or found.high < 0):
                kind = " class=better" if (found.mean > 0) == (each.better == "higher") else " class=worse"
            cells += f"<td{kind}>{_cell(found, each)}</td>"
        lines += f"<tr><th scope=row>{escape(first)} <small>minus</small> {escape(second)}</th>{cells}</tr>"
    return (
        "<p>On the utterances of both, with intervals as above. Coloured where the interval leaves out zero: "
        "<span class=better>the first is better</span>, <span class=worse>the first is worse</span>.</p>"
        f"<div class=wide><table>{_heads(results.measures, '')}<tbody>{lines}</tbody></table></div>"
    )


def _histograms(results: Results, colors: Mapping[str, str]) -> str:
    legend = "".join(f'<span><i style="background:{colors[name]}"></i>{escape(name)}</span>' for name in colors)
    figures = ""
    for each in results.measures:
        values = {
            name: [row.values[each.name] for row in results.rows if row.contestant == name and each.name in row.values]
            for name in results.contestants
        }
        label = f"{each.title}: how many utterances have which value"
        if drawing := histogram(values, colors, min(each.digits, 2), label):
            figures += f"<figure><figcaption>{escape(each.title)}</figcaption>{drawing}</figure>"
    return f'<p class=legend>{legend}</p><div class="grid small">{figures}</div>'


def _utterance(
    results: Results, utterance: str, clips: Mapping[tuple[str, str], Clip], codec: str, colors: Mapping[str, str]
) -> str:
    told = [each for each in results.measures if each.name in ("mstft", "pesq", "distillmos", "mcd")][:2]
    figures = ""
    for name in results.names:
        if (clip := clips.get((utterance, name))) is None:
            continue
        row = results.by_place[utterance, name]
        values = " · ".join(
            f"{escape(each.title)} {row.values[each.name]:.{min(each.digits, 3)}f}"
            for each in told
            if each.name in row.values
        )
        label = escape(f"{name}, {utterance}")
        figures += (
            f'<figure><figcaption><i style="background:{colors.get(name, "transparent")}"></i><b>{escape(name)}</b>'
            f"</figcaption>"
            f'<img alt="spectrogram of {label}" src="data:image/webp;base64,{clip.picture}">'
            f'<audio controls preload="metadata" aria-label="{label}" src="data:audio/{codec};base64,{clip.sound}">'
            f"</audio><small>{values}&nbsp;</small></figure>"
        )
    speaker = f", {escape(row.speaker)}" if row.speaker else ""
    return (
        f"<article><h3>{escape(utterance)} <small>{row.seconds:.1f} s{speaker}</small></h3>"
        f"<div class=grid>{figures}</div></article>"
    )


def _all(results: Results) -> str:
    measure, lines = results.ranking, ""
    for utterance in results.worst_first:
        cells = ""
        for name in results.contestants:
            row = results.by_place.get((utterance, name))
            value = row.values[measure.name] if row else float("nan")
            cells += f"<td>{value:.{measure.digits}f}</td>" if value == value else f"<td>{NOTHING}</td>"
        lines += f"<tr><th scope=row>{escape(utterance)}</th>{cells}</tr>"
    heads = "".join(f"<th>{escape(name)}</th>" for name in results.contestants)
    table = f"<table><thead><tr><th>{escape(measure.title)}</th>{heads}</tr></thead><tbody>{lines}</tbody></table>"
    return (
        f"<details><summary>{escape(measure.title)} of every utterance</summary><div class=wide>{table}</div></details>"
    )


def _metrics(results: Results) -> str:
    lines = ""
    for each in results.measures:
        unit = f" ({escape(each.unit)})" if each.unit else ""
        cost = results.outcome.costs.get(each.name)
        took = f" {cost:.2g} CPU seconds per second of audio." if cost is not None else ""
        lines += f"<dt>{escape(each.title)}{unit}, {each.better} is better</dt><dd>{escape(each.source)}.{took}</dd>"
    return f"<dl>{lines}</dl>"

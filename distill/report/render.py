"""Assemble the page from its template."""

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from distill.recipes.key_types import LABEL_SOURCES
from distill.recipes.weak_towers import agreement_note_of
from distill.report.bars import soft_label_bars
from distill.report.confusion import confusion_tables
from distill.report.curves import curves
from distill.report.dots import dot_chart, shared_scale
from distill.report.images import MAX_SHOWN_CLASSES, class_rows
from distill.report.inputs import ReportInput
from distill.report.rate_chart import rate_section
from distill.report.scales import count_text, finite, percent, size_text
from distill.report.tables import (
    Item,
    accuracy_table,
    digest_rows,
    dot_rows,
    items,
    network_sentences,
    plain_text,
    recipe_tables,
    stage_rows,
)
from distill.report.verdict import find_verdict


def render_report(report: ReportInput) -> str:
    """One HTML page that needs nothing else: no network, no other file.

    The page is a pure function of its input. Text from the input is escaped everywhere, and a
    content security policy forbids every request.

    Args:
        report: What to show; parts that are empty leave their section out.

    Returns:
        The HTML text, to be written as UTF-8.
    """
    classes = class_rows(report)
    bars = soft_label_bars(report, classes)
    rates = rate_section(report.summary, report.sweep)
    scripts = (["bars.js"] if bars else []) + (["tips.js"] if rates else [])
    return render_page(
        "template.html",
        scripts,
        title=report.title,
        verdict=find_verdict(report.summary),
        warning=agreement_note_of(report.metrics, report.recipe),
        facts=_facts(report),
        table=accuracy_table(report.summary),
        networks=network_sentences(report.summary),
        dots=_dots(report.summary),
        classes=classes,
        all_classes=len({int(x) for x in (*report.synthetic_labels, *report.real_labels)}),
        most_classes=MAX_SHOWN_CLASSES,
        bars=bars,
        rates=rates,
        confusions=confusion_tables(report.summary, report.class_names),
        curves=curves(report.metrics),
        stages=stage_rows(report.manifest, report.summary),
        protocol=items(_protocol(report.summary)),
        recipe=recipe_tables(report.recipe),
        versions=items(report.manifest.get("versions") or {}),
        data=items(report.manifest.get("data") or {}),
        digests=digest_rows(report.manifest),
    )


def render_page(template: str, scripts: Sequence[str], **content: Any) -> str:
    """A page from one of our templates, with its style and scripts inside it.

    Args:
        template: file name beside this module.
        scripts: file names; the page's policy allows these and no other.
        content: what the template names.
    """
    environment = Environment(
        loader=FunctionLoader(_asset),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    texts = [_asset(name) for name in scripts]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
    return environment.get_template(template).render(
        style=Markup(_asset("style.css")),  # noqa: S704 - our own file
        scripts=[Markup(text) for text in texts],  # noqa: S704 - our own files
        hashes=hashes,
        **content,
    )


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _protocol(summary: Mapping[str, Any]) -> dict[str, Any]:
    """How students were trained, without the label sources that no student was trained on.

    A protocol states all of `LABEL_SOURCES`, whether a set has them or not.
    """
    controls = summary.get("controls") or {}
    measured = {
        source
        for table in (summary.get("students") or {}, *controls.values())
        for sources in table.values()
        for source in sources
    }
    return {
        key: value
        for key, value in (summary.get("protocol") or {}).items()
        if key not in LABEL_SOURCES or key in measured
    }


def _dots(summary: Mapping[str, Any]) -> list[Markup]:
    students = dot_rows(summary)
    scale = shared_scale([row for rows in students.values() for row in rows])
    if scale is None:
        return []
    return [
        dot_chart(f"seeds-{number}", student, rows, scale)
        for number, (student, rows) in enumerate(students.items())
    ]


def _facts(report: ReportInput) -> list[Item]:
    """The key figures of the run, shown first."""
    manifest, bytes_ = report.manifest, report.summary.get("bytes") or {}
    data = manifest.get("data") or {}
    counts = set(Counter(int(label) for label in report.synthetic_labels).values())
    per_class = f" ({counts.pop()} per class)" if len(counts) == 1 else ""
    size = f"{size_text(bytes_['images'])} of images" if "images" in bytes_ else ""
    whole = _whole_text(report.summary)
    facts = [
        ("Data", plain_text(data["source"]) if "source" in data else ""),
        ("Synthetic images", f"{count_text(len(report.synthetic))}{per_class}"),
        ("Size", size),
        ("Whole data set reaches", whole),
        ("Seed", plain_text(manifest["seed"]) if "seed" in manifest else ""),
        ("Device", str(manifest.get("device") or "")),
        ("Created", str(manifest.get("created") or "")),
    ]
    return [Item(key, value) for key, value in facts if value]


def _whole_text(summary: Mapping[str, Any]) -> str:
    whole = (summary.get("controls") or {}).get("whole") or {}
    scores = [
        (mean, student)
        for student, sources in whole.items()
        for entry in sources.values()
        if (mean := finite(entry.get("mean"))) is not None
    ]
    if not scores:
        return ""
    mean, student = max(scores)
    return f"{percent(mean)} % ({student})"

"""Lints and renders a chart without a cluster, and prints what came of it as JSON.

    helm.py CHART VALUES

Helm is the library in the package helm-python-sdk. What Helm refuses is printed as {"refused": reason}.
"""

import json
import re
import sys

import helm_python as helm


def values_of(name):
    with open(name, encoding="utf-8") as file:
        return helm.values_from_yaml(file.read())


def documents(manifests):
    for name, text in sorted(manifests.items()):
        if name.endswith((".yaml", ".yml")):
            for part in re.split(r"(?m)^---\s*$", text):
                document = helm.values_from_yaml(part) if part.strip() else None
                if document:
                    yield document


def result(path, file):
    try:
        values = values_of(file)
        report = helm.lint(path, values, strict=True)
        with helm.Chart.load(path) as chart:
            chart.validate_schema(values)
            rendered = chart.render(values, name="builder", namespace="darwin", is_install=True)
            return {
                "lint": report,
                "defaults": chart.values,
                "notes": next(text for name, text in rendered.items() if name.endswith("NOTES.txt")),
                "documents": list(documents(rendered)),
            }
    except helm.HelmError as error:
        return {"refused": str(error)}


print(json.dumps(result(sys.argv[1], sys.argv[2])))

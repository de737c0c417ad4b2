"""Writes the Grafana dashboards of this folder: `python3 deploy/grafana/generate.py`.

The JSON of a dashboard repeats a lot: position, data source and options of each panel. This file
holds what differs, a title, a unit and the PromQL expressions, and the end-to-end tests send each
expression to a real Prometheus that scrapes a real gateway.
"""

import json
import pathlib

HERE = pathlib.Path(__file__).parent
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24  # the width of Grafana's grid
HEIGHT = 8


def panel(title, *queries, unit="short", kind="timeseries", width=12, description="", maximum=None):
    """A panel. A query is an expression and the legend of its series."""
    defaults = {"unit": unit, "min": 0}
    if maximum is not None:
        defaults["max"] = maximum
    return {
        "title": title,
        "description": description,
        "type": kind,
        "datasource": SOURCE,
        "gridPos": {"x": 0, "y": 0, "w": width, "h": HEIGHT if kind == "timeseries" else 4},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}}
        if kind == "timeseries"
        else {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
            | ({"exemplar": True} if "_bucket" in expression else {})
            for index, (expression, legend) in enumerate(queries)
        ],
    }


def quantiles(metric, by, legend):
    """P50, P90 and P99 of a histogram."""
    labels = ", ".join(["le", *by])
    return [
        (f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{{{SELECTOR}}}[$__rate_interval])))",
         f"P{round(float(q) * 100)} {legend}".strip())
        for q in ("0.5", "0.9", "0.99")
    ]


def place(panels):
    """Puts the panels into rows from left to right."""
    x = y = row = 0
    for index, one in enumerate(panels, start=1):
        size = one["gridPos"]
        if x + size["w"] > COLUMNS:
            x, y, row = 0, y + row, 0
        size["x"], size["y"] = x, y
        x, row = x + size["w"], max(row, size["h"])
        one["id"] = index
    return panels


def variable(name, label, query):
    """A variable that selects values of a label."""
    return {
        "name": name, "label": label, "type": "query", "datasource": SOURCE, "query": query, "refresh": 2,
        "includeAll": True, "multi": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"},
    }


def dashboard(name, title, variables, panels):
    """Writes a dashboard to NAME.json."""
    document = {
        "uid": f"witgate-{name}", "title": title, "tags": ["witgate"], "schemaVersion": 39, "version": 1,
        "editable": True, "refresh": "10s", "time": {"from": "now-1h", "to": "now"}, "timezone": "browser",
        "links": [{"title": "witgate", "type": "dashboards", "tags": ["witgate"], "asDropdown": False,
                   "includeVars": True, "keepTime": True, "targetBlank": False, "icon": "external link",
                   "tooltip": "", "url": ""}],
        "annotations": {"list": [{
            "name": "Reloads", "datasource": SOURCE, "enable": True, "iconColor": "blue",
            "expr": f'changes(witgate_reloads_total{{result="applied", {SELECTOR}}}[1m]) > 0'}]},
        "templating": {"list": [
            {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
            variable("instance", "Gateway", "label_values(witgate_build_info, instance)"), *variables]},
        "panels": place(panels),
    }
    (HERE / f"{name}.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


SELECTOR = 'instance=~"$instance"'
ROUTE = 'instance=~"$instance", route=~"$route"'
FILTER = 'instance=~"$instance", filter=~"$filter"'
UPSTREAM = 'instance=~"$instance", upstream=~"$upstream"'
FAILED = 'status=~"5.."'

dashboard("overview", "witgate: overview", [variable("route", "Route", "label_values(witgate_requests_total, route)")], [
    panel("Requests", (f"sum(rate(witgate_requests_total{{{ROUTE}}}[$__rate_interval]))", "requests"),
          kind="stat", unit="reqps", width=6),
    panel("Responses with 5xx", (
        f"sum(rate(witgate_requests_total{{{ROUTE}, {FAILED}}}[$__rate_interval])) or vector(0)", "5xx"),
          kind="stat", unit="reqps", width=6),
    panel("Exchanges in flight", (f"sum(witgate_in_flight{{{SELECTOR}}})", "in flight"), kind="stat", width=6),
    panel("Client connections", (f"sum(witgate_connections{{{SELECTOR}}})", "connections"), kind="stat", width=6),
    panel("Requests by route", (
        f"sum by (route) (rate(witgate_requests_total{{{ROUTE}}}[$__rate_interval]))", "{{route}}"), unit="reqps"),
    panel("Requests by status", (
        f"sum by (status) (rate(witgate_requests_total{{{ROUTE}}}[$__rate_interval]))", "{{status}}"), unit="reqps"),
    panel("Time to the response's head", *quantiles("witgate_request_duration_seconds", [], ""), unit="s",
          description="From the request's head to the response's head."),
    panel("P99 by route", quantiles("witgate_request_duration_seconds", ["route"], "{{route}}")[2], unit="s"),
    panel("Share of 5xx by route", (
        f"sum by (route) (rate(witgate_requests_total{{{ROUTE}, {FAILED}}}[$__rate_interval]))"
        f" / sum by (route) (rate(witgate_requests_total{{{ROUTE}}}[$__rate_interval]))", "{{route}}"),
          unit="percentunit", maximum=1),
    panel("TLS handshakes", (
        f"sum by (result) (rate(witgate_tls_handshakes_total{{{SELECTOR}}}[$__rate_interval]))", "{{result}}"),
          unit="ops"),
    panel("Days until a certificate expires", (
        f"(min by (listener, name) (witgate_certificate_expiry_timestamp_seconds{{{SELECTOR}}}) - time()) / 86400",
        "{{listener}} {{name}}"), unit="d"),
    panel("Reloads", (
        f"sum by (result) (increase(witgate_reloads_total{{{SELECTOR}}}[$__rate_interval]))", "{{result}}")),
])

dashboard("filters", "witgate: filters", [variable("filter", "Filter", "label_values(witgate_filter_info, filter)")], [
    panel("Calls", (
        f"sum by (filter, version) (rate(witgate_filter_calls_total{{{FILTER}}}[$__rate_interval]))",
        "{{filter}} {{version}}"), unit="ops"),
    panel("Share of failed calls", (
        f"sum by (filter, version) (rate(witgate_filter_errors_total{{{FILTER}}}[$__rate_interval]))"
        f" / sum by (filter, version) (rate(witgate_filter_calls_total{{{FILTER}}}[$__rate_interval]))",
        "{{filter}} {{version}}"), unit="percentunit"),
    panel("Failed calls by kind", (
        f"sum by (filter, kind) (rate(witgate_filter_errors_total{{{FILTER}}}[$__rate_interval]))",
        "{{filter}}: {{kind}}"), unit="ops"),
    panel("Duration of a call, P50", quantiles(
        "witgate_filter_call_duration_seconds", ["filter", "version"], "{{filter}} {{version}}")[0], unit="s"),
    panel("Duration of a call, P99", quantiles(
        "witgate_filter_call_duration_seconds", ["filter", "version"], "{{filter}} {{version}}")[2], unit="s"),
    panel("Time in filters per second", (
        f"sum by (filter, phase) (rate(witgate_filter_call_duration_seconds_sum{{{FILTER}}}[$__rate_interval]))",
        "{{filter}} {{phase}}"), unit="s", description="1 s per second is one processor core."),
    panel("Versions in service", (
        f"max by (filter, version, digest) (witgate_filter_info{{{FILTER}}})", "{{filter}} {{version}} {{digest}}")),
    panel("Refused files", (
        f"sum by (filter, reason) (increase(witgate_filter_load_failures_total{{{FILTER}}}[$__rate_interval]))",
        "{{filter}}: {{reason}}")),
    panel("Instances", (f"sum(witgate_instances{{{SELECTOR}}})", "alive"),
          (f"sum by (filter) (witgate_filter_instances_kept{{{FILTER}}})", "idle: {{filter}}")),
    panel("Log lines and spans dropped",
          (f"sum(rate(witgate_filter_log_lines_dropped_total{{{SELECTOR}}}[$__rate_interval]))", "lines of filters"),
          (f"sum(rate(witgate_log_lines_dropped_total{{{SELECTOR}}}[$__rate_interval]))", "lines of the log"),
          (f"sum(rate(witgate_access_log_lines_dropped_total{{{SELECTOR}}}[$__rate_interval]))", "lines of the access log"),
          (f"sum(rate(witgate_trace_spans_dropped_total{{{SELECTOR}}}[$__rate_interval]))", "spans"), unit="ops"),
])

dashboard(
    "upstreams", "witgate: upstreams",
    [variable("upstream", "Upstream", "label_values(witgate_endpoint_healthy, upstream)")], [
        panel("Tries by result", (
            f"sum by (upstream, result) (rate(witgate_upstream_requests_total{{{UPSTREAM}}}[$__rate_interval]))",
            "{{upstream}}: {{result}}"), unit="ops"),
        panel("Tries by endpoint", (
            f"sum by (upstream, endpoint) (rate(witgate_upstream_requests_total{{{UPSTREAM}}}[$__rate_interval]))",
            "{{upstream}} {{endpoint}}"), unit="ops"),
        panel("Retries", (
            f"sum by (upstream, result) (rate(witgate_upstream_retries_total{{{UPSTREAM}}}[$__rate_interval]))",
            "{{upstream}}: {{result}}"), unit="ops"),
        panel("Endpoints out of service", (
            f"sum by (upstream) (1 - witgate_endpoint_healthy{{{UPSTREAM}}})", "{{upstream}}: unhealthy"),
              (f"sum by (upstream) (witgate_endpoint_ejected{{{UPSTREAM}}})", "{{upstream}}: ejected")),
        panel("Requests in flight", (
            f"sum by (upstream, endpoint) (witgate_endpoint_in_flight{{{UPSTREAM}}})", "{{upstream}} {{endpoint}}")),
        panel("Requests that wait for a connection", (
            f"sum by (upstream, endpoint) (witgate_endpoint_pending{{{UPSTREAM}}})", "{{upstream}} {{endpoint}}")),
        panel("Connections", (
            f"sum by (upstream, endpoint) (witgate_endpoint_connections{{{UPSTREAM}}})", "{{upstream}} {{endpoint}}")),
        panel("Ejections", (
            f"sum by (upstream, endpoint) (increase(witgate_endpoint_ejections_total{{{UPSTREAM}}}[$__rate_interval]))",
            "{{upstream}} {{endpoint}}")),
    ])

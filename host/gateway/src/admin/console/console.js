// The console: reads /metrics and the JSON resources of the admin listener every second and draws
// them. Rates are differences of two readings, so the page shows what happens while it is open.
// Everything that the gateway reports is written as text, never as HTML. A token is kept in a
// variable only: it is gone when the page is closed or loaded again.
"use strict";

const PERIOD_MS = 1000;
const POINTS_MAX = 300; // five minutes
const WINDOW_SECONDS_MIN = 60; // what a chart shows at least
const STATUS_COLOURS = { "2xx": "--good", "3xx": "--accent", "4xx": "--warn", "5xx": "--bad" };

const byId = (id) => document.getElementById(id);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// ---- reading -------------------------------------------------------------------------------

// Reads the text format of Prometheus into a list of {name, labels, value}.
function parseMetrics(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    const match = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ([^ ]+)/.exec(line);
    if (!match) continue;
    const labels = {};
    for (const [, key, value] of (match[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) {
      labels[key] = value.replace(/\\(.)/g, (_, escaped) => (escaped === "n" ? "\n" : escaped));
    }
    samples.push({ name: match[1], labels, value: Number(match[3]) });
  }
  return samples;
}

// The samples of one reading, with sums by label.
class Reading {
  constructor(samples, at) {
    this.at = at;
    this.byName = Map.groupBy
      ? Map.groupBy(samples, (sample) => sample.name)
      : samples.reduce((map, sample) => map.set(sample.name, [...(map.get(sample.name) ?? []), sample]), new Map());
  }

  select(name, labels = {}) {
    const wanted = Object.entries(labels);
    return (this.byName.get(name) ?? []).filter((one) => wanted.every(([key, value]) => one.labels[key] === value));
  }

  sum(name, labels, keep = () => true) {
    return this.select(name, labels).filter((one) => keep(one.labels)).reduce((sum, one) => sum + one.value, 0);
  }
}

// The change per second between two readings; a restarted gateway counts from zero again.
function rate(before, after, name, labels, keep) {
  if (!before) return null;
  const change = after.sum(name, labels, keep) - before.sum(name, labels, keep);
  return Math.max(0, change) / ((after.at - before.at) / 1000);
}

// A quantile of a histogram between two readings, interpolated within its bucket.
function quantile(q, before, after, name, labels) {
  if (!before) return null;
  const counts = new Map();
  for (const [reading, sign] of [[after, 1], [before, -1]]) {
    for (const { labels: { le }, value } of reading.select(`${name}_bucket`, labels)) {
      counts.set(le, (counts.get(le) ?? 0) + sign * value);
    }
  }
  const buckets = [...counts].map(([le, count]) => [le === "+Inf" ? Infinity : Number(le), count]);
  buckets.sort((a, b) => a[0] - b[0]);
  const total = buckets.at(-1)?.[1] ?? 0;
  if (total <= 0) return null;
  let lower = 0, below = 0;
  for (const [upper, count] of buckets) {
    if (count >= q * total) {
      if (upper === Infinity) return lower;
      return lower + (upper - lower) * ((q * total - below) / Math.max(1e-9, count - below));
    }
    [lower, below] = [upper, count];
  }
  return lower;
}

let token = "";

// The gateway wants a token, or another one.
class Refused extends Error {}

function send(path, method = "GET") {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  return fetch(path, { method, headers, cache: "no-store", signal: AbortSignal.timeout(3000) });
}

async function get(path, read) {
  const response = await send(path);
  if (!response.ok) {
    if (response.status === 404) return null;
    if (response.status === 401 || response.status === 403) throw new Refused((await response.text()).trim());
    throw new Error(`${path} answered ${response.status}`);
  }
  return read(response);
}
const getJson = (path) => get(path, (response) => response.json());

// ---- writing -------------------------------------------------------------------------------

function element(name, content, className) {
  const node = document.createElement(name);
  if (className) node.className = className;
  node.append(...(Array.isArray(content) ? content : [content ?? ""]));
  return node;
}

// Replaces a table's content. A column is [title, cell of a row, is a number].
function fill(id, columns, rows, empty) {
  const table = byId(id);
  const cell = (name, content, number) => {
    const node = element(name, content, number ? "number" : "");
    if (name === "th") node.scope = "col";
    return node;
  };
  const head = element("tr", columns.map(([title, , number]) => cell("th", title, number)));
  const body = rows.map((row) => element("tr", columns.map(([, value, number]) => cell("td", value(row), number))));
  if (!rows.length) {
    const none = element("td", empty, "quiet");
    none.colSpan = columns.length;
    body.push(element("tr", none));
  }
  table.replaceChildren(element("thead", head), element("tbody", body));
}

const number = (value, digits = 0) =>
  value === null || Number.isNaN(value) ? "–" : value.toLocaleString("en", { maximumFractionDigits: digits });
const perSecond = (value) => number(value, value < 10 ? 1 : 0);
const percent = (part, all) => (all ? `${number((100 * part) / all, 2)}%` : "–");
const duration = (seconds) => {
  if (seconds === null) return "–";
  if (seconds < 0.001) return `${number(seconds * 1e6)} µs`;
  return seconds < 1 ? `${number(seconds * 1e3, 1)} ms` : `${number(seconds, 2)} s`;
};

// How long ago a time was, so that nobody has to subtract.
const ago = (time) => {
  const seconds = (Date.now() - Date.parse(time)) / 1000;
  if (Number.isNaN(seconds)) return "";
  if (seconds < 60) return "just now";
  return seconds < 7200 ? `${number(seconds / 60)} min ago` : `${number(seconds / 3600)} h ago`;
};

const clock = (seconds) => new Date(seconds * 1000).toISOString().slice(11, 19);

class Chart {
  constructor(id, series) {
    this.node = byId(id);
    this.data = [[], ...series.map(() => [])];
    this.series = series;
    this.node.before(element("p", series.map(([label, name]) => element("span", label, `key ${name.slice(2)}`)), "keys"));
    this.draw();
    new ResizeObserver(() => this.plot.setSize(this.size())).observe(this.node);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  size() {
    return { width: Math.max(200, this.node.clientWidth), height: 160 };
  }

  draw() {
    this.plot?.destroy();
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line") }, ticks: { stroke: colour("--line") } };
    this.plot = new uPlot({
      ...this.size(),
      legend: { show: false },
      cursor: { y: false },
      scales: {
        x: { range: (_, low, high) => [Math.min(low, high - WINDOW_SECONDS_MIN), high] },
        y: { range: (_, low, high) => [0, Math.max(1, high * 1.1)] },
      },
      axes: [{ ...axis, space: 80, values: (_, times) => times.map(clock) }, { ...axis, size: 48 }],
      series: [{}, ...this.series.map(([label, name]) => ({ label, stroke: colour(name), width: 2, spanGaps: false, points: { show: false } }))],
    }, this.data, this.node);
  }

  add(at, values) {
    this.data[0].push(at / 1000);
    values.forEach((value, index) => this.data[index + 1].push(value));
    for (const list of this.data) while (list.length > POINTS_MAX) list.shift();
    this.plot.setData(this.data);
  }
}

// ---- the page ------------------------------------------------------------------------------

const REQUESTS = "witgate_requests_total";
const SECONDS = "witgate_request_duration_seconds";
const CALLS = "witgate_filter_calls_total";
const CALL_SECONDS = "witgate_filter_call_duration_seconds";
const isFailed = ({ status }) => status?.startsWith("5");

function showFigures(before, after, ready) {
  const requests = rate(before, after, REQUESTS);
  const failed = rate(before, after, REQUESTS, {}, isFailed);
  const figures = [
    ["Requests per second", perSecond(requests)],
    ["Responses with 5xx", requests ? percent(failed, requests) : "–", failed ? "bad" : ""],
    ["P50", duration(quantile(0.5, before, after, SECONDS))],
    ["P99", duration(quantile(0.99, before, after, SECONDS))],
    ["In flight", number(after.sum("witgate_in_flight"))],
    ["Connections", number(after.sum("witgate_connections"))],
    ["Instances", number(after.sum("witgate_instances"))],
  ];
  byId("figures").replaceChildren(
    ...figures.map(([title, value, className]) => element("div", [element("dt", title), element("dd", value, className)])));
  byId("version").textContent = after.select("witgate_build_info")[0]?.labels.version ?? "";
  setState(ready ? "ready" : "draining", ready ? "good" : "warn");
}

function showCharts(charts, before, after) {
  const status = (digit) => rate(before, after, REQUESTS, {}, (labels) => labels.status?.startsWith(digit));
  charts.requests.add(after.at, ["2", "3", "4", "5"].map(status));
  const milliseconds = (q) => {
    const seconds = quantile(q, before, after, SECONDS);
    return seconds === null ? null : seconds * 1000;
  };
  charts.latency.add(after.at, [0.5, 0.9, 0.99].map(milliseconds));
  charts.errors.add(after.at, [rate(before, after, REQUESTS, {}, isFailed)]);
}

// The chain of a route from left to right, each filter with its share of the route's filter time.
function chain(route, before, after) {
  const spent = (filter) => rate(before, after, `${CALL_SECONDS}_sum`, { filter }) ?? 0;
  const filters = route.filters ?? [];
  const total = filters.reduce((sum, filter) => sum + spent(filter), 0);
  const parts = filters.map((filter) =>
    element("li", total ? `${filter} ${number((100 * spent(filter)) / total)}%` : filter));
  const targets = (route.upstreams ?? []).map(({ name }) => name).join(", ") || "the gateway answers";
  return element("ol", [element("li", "client"), ...parts, element("li", targets)], "chain");
}

// Whoever may only read sees the commands, but cannot give them.
const COMMANDS = {
  releasing: ["promote", "pause", "rollback"],
  paused: ["promote", "resume", "rollback"],
  rolled_back: ["promote", "rollback"],
  steady: ["rollback"],
};

async function command(filter, name) {
  const result = byId("command-result");
  try {
    const response = await send(`/releases/${encodeURIComponent(filter)}/${name}`, "POST");
    const text = (await response.text()).trim();
    const done = response.ok ? JSON.parse(text) : null;
    result.textContent = done ? `${filter}: ${done.decision.replace("_", " ")} ${done.version}` : `${filter}: ${text}`;
  } catch (error) {
    result.textContent = `${filter}: ${error.message}`;
  }
}

function commandButton(release, name, role) {
  const node = element("button", name[0].toUpperCase() + name.slice(1));
  node.type = "button";
  node.setAttribute("aria-label", `${node.textContent} ${release.name}`);
  const isUseless = release.state === "steady" && !release.previous.length;
  node.disabled = !role?.may_change || isUseless;
  if (!role?.may_change) node.title = "This needs a token or a certificate that may give commands.";
  node.addEventListener("click", () => command(release.name, name));
  return node;
}

// A table that is drawn again loses the focus of its buttons, so only changes are drawn.
let shownReleases = "";
function showReleases(releases, role) {
  const rows = releases ?? [];
  const state = JSON.stringify([role?.may_change, rows.map(({ name, state, version, digest, verdict, release, previous }) =>
    [name, state, version, digest, verdict, release?.step, release?.digest, previous.length])]);
  if (state === shownReleases) return;
  shownReleases = state;
  const step = ({ release }) => (release ? `${release.step} of ${release.steps.length}: ${release.steps[release.step - 1]}` : "–");
  fill("releases", [
    ["Filter", (release) => element("code", release.name)],
    ["Version", (release) => (release.release ? `${release.version} → ${release.release.version}` : release.version)],
    ["State", (release) => element("span", release.state.replace("_", " "), release.state === "rolled_back" ? "bad" : "good")],
    ["Step", step],
    ["Last decision", (release) => release.verdict],
    ["Commands", (release) => element("span", COMMANDS[release.state].map((name) => commandButton(release, name, role)), "commands")],
  ], rows, "No filter is loaded.");
}

// Asks for a token if one would allow more.
function showAccess(role, why) {
  byId("access").hidden = Boolean(role?.may_change);
  const text = why ?? (token ? "This token may only read." : "Without a token this page may only read.");
  if (byId("access-why").textContent !== text) byId("access-why").textContent = text;
}

function showRoutes(routes, before, after) {
  const names = [...new Set(after.select(REQUESTS).map(({ labels }) => labels.route))].sort();
  const rows = routes ?? names.map((name) => ({ name }));
  const columns = [
    ["Route", (route) => element("code", route.name)],
    ["Chain", (route) => (routes ? chain(route, before, after) : "")],
    ["Requests/s", (route) => perSecond(rate(before, after, REQUESTS, { route: route.name })), true],
    ["5xx", (route) => percent(
      rate(before, after, REQUESTS, { route: route.name }, isFailed), rate(before, after, REQUESTS, { route: route.name })), true],
    ["P50", (route) => duration(quantile(0.5, before, after, SECONDS, { route: route.name })), true],
    ["P99", (route) => duration(quantile(0.99, before, after, SECONDS, { route: route.name })), true],
  ];
  fill("routes", routes ? columns : columns.filter(([title]) => title !== "Chain"), rows, "No request has come yet.");
}

function showFilters(filters, before, after) {
  const of = ({ name, version }) => ({ filter: name, version });
  const errors = (filter) => rate(before, after, "witgate_filter_errors_total", of(filter));
  fill("filters", [
    ["Filter", (filter) => element("code", filter.name)],
    ["Version", (filter) => filter.version],
    ["Digest", (filter) => element("code", String(filter.digest).replace(/^sha256:/, "").slice(0, 12))],
    ["State", (filter) => element("span", filter.refused ? `serving; a newer file was refused: ${filter.refused.reason}` : filter.state,
      filter.refused ? "warn" : "good")],
    ["Grants", (filter) => (filter.capabilities ?? []).join(", ") || "–"],
    ["Calls/s", (filter) => perSecond(rate(before, after, CALLS, of(filter))), true],
    ["Failed", (filter) => percent(errors(filter), rate(before, after, CALLS, of(filter))), true],
    ["P50", (filter) => duration(quantile(0.5, before, after, CALL_SECONDS, of(filter))), true],
    ["P99", (filter) => duration(quantile(0.99, before, after, CALL_SECONDS, of(filter))), true],
  ], filters ?? [], "No filter is loaded.");
}

function showUpstreams(upstreams) {
  const rows = (upstreams ?? []).flatMap(({ name, endpoints }) => endpoints.map((endpoint) => ({ name, ...endpoint })));
  const health = (endpoint) => {
    if (endpoint.healthy === false) return element("span", "unhealthy", "bad");
    const ejected = endpoint.ejected_for_seconds;
    if (ejected !== null) return element("span", `ejected for ${number(ejected)} s`, "bad");
    return element("span", "in service", "good");
  };
  fill("upstreams", [
    ["Upstream", (endpoint) => element("code", endpoint.name)],
    ["Endpoint", (endpoint) => element("code", endpoint.endpoint)],
    ["State", health],
    ["Failures in a row", (endpoint) => number(endpoint.failures), true],
    ["In flight", (endpoint) => number(endpoint.in_flight), true],
    ["Connections", (endpoint) => number(endpoint.connections), true],
    ["Waiting", (endpoint) => number(endpoint.pending), true],
  ], rows, "No upstream has endpoints.");
}

function showCertificates(after) {
  const rows = [
    ...after.select("witgate_certificate_expiry_timestamp_seconds"),
    ...after.select("witgate_upstream_certificate_expiry_timestamp_seconds"),
  ];
  const days = ({ value }) => (value * 1000 - Date.now()) / 86_400_000;
  fill("certificates", [
    ["Used by", ({ labels }) => labels.listener ?? labels.upstream],
    ["Name", ({ labels }) => element("code", labels.name)],
    ["Expires", ({ value }) => new Date(value * 1000).toISOString().slice(0, 16).replace("T", " ")],
    ["Days left", (row) => element("span", number(days(row), 1), days(row) < 7 ? "bad" : "good"), true],
  ], rows, "No certificate is in use.");
}

function showFailures(exchanges) {
  const rows = [
    ...(exchanges?.failed ?? []).map((entry) => ({ ...entry, className: "bad" })),
    ...(exchanges?.refused ?? []).map((entry) => ({ ...entry, className: "warn" })),
  ].sort((a, b) => String(b.exchange?.time).localeCompare(String(a.exchange?.time))).slice(0, 20);
  fill("failures", [
    ["Time", ({ exchange }) => [String(exchange?.time ?? "").slice(11, 19), element("div", ago(exchange?.time), "quiet")]],
    ["Status", ({ exchange, className }) => element("span", String(exchange?.status ?? "–"), className)],
    ["What happened", ({ what, advice }) => [what, element("div", advice, "quiet")]],
    ["Id", ({ exchange }) => element("code", String(exchange?.id ?? ""))],
  ], rows, "No request has failed.");
}

function setState(text, className) {
  const state = byId("state");
  if (state.textContent !== text) state.textContent = text;
  state.className = `badge ${className}`;
}

async function update(charts, before) {
  const role = await getJson("/role");
  const [text, ready, filters, upstreams, exchanges, routes, releases] = await Promise.all([
    get("/metrics", (response) => response.text()),
    fetch("/readyz", { cache: "no-store", signal: AbortSignal.timeout(3000) }).then((response) => response.ok),
    getJson("/filters"), getJson("/upstreams"), getJson("/exchanges"), getJson("/routes"), getJson("/releases"),
  ]);
  const after = new Reading(parseMetrics(text), Date.now());
  showFigures(before, after, ready);
  showCharts(charts, before, after);
  showAccess(role);
  showFailures(exchanges);
  showReleases(releases, role);
  showRoutes(routes, before, after);
  showFilters(filters, before, after);
  showUpstreams(upstreams);
  showCertificates(after);
  return after;
}

async function run() {
  const charts = {
    requests: new Chart("chart-requests", Object.entries(STATUS_COLOURS)),
    latency: new Chart("chart-latency", [["P50", "--good"], ["P90", "--accent"], ["P99", "--bad"]]),
    errors: new Chart("chart-errors", [["5xx", "--bad"]]),
  };
  let paused = false;
  byId("pause").addEventListener("click", ({ currentTarget }) => {
    paused = !paused;
    currentTarget.setAttribute("aria-pressed", String(paused));
    currentTarget.textContent = paused ? "Resume" : "Pause";
  });
  byId("access").addEventListener("submit", (event) => {
    event.preventDefault();
    token = byId("token").value.trim();
    byId("token").value = "";
  });
  let reading = null;
  for (;;) {
    const started = Date.now();
    try {
      if (!paused && !document.hidden) reading = await update(charts, reading);
    } catch (error) {
      if (error instanceof Refused) {
        setState("a token is needed", "warn");
        showAccess(null, token ? `The gateway refuses this token: ${error.message}` : "Reading needs a token, too.");
      } else {
        setState("no connection to the gateway", "bad");
        console.warn(error);
      }
      reading = null;
    }
    await new Promise((resolve) => setTimeout(resolve, Math.max(100, PERIOD_MS - (Date.now() - started))));
  }
}

run();

// Live charts of the last five minutes, by plotly.js. Lines differ by dash as well as by colour.

import { $, element } from "./page.js";

const WINDOW = 300; // seconds
const COLOURS = ["--line-1", "--line-2", "--line-3", "--line-4", "--line-5", "--line-6"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
const MB = 1024 * 1024;
const CLASSES = ["2xx", "3xx", "4xx", "5xx"];

// Each: a title, the unit, and from one point the value of each line, by name.
const CHARTS = [
  { id: "cpu", title: "CPU by container", unit: "% of one CPU", lines: (p) => p.cpu, most: 10 },
  {
    id: "memory",
    title: "Memory by container, of its limit",
    unit: "% of the limit",
    lines: (p) => map(p.memory, ([used, limit]) => (used === null || !limit ? null : (100 * used) / limit)),
    told: (p) => map(p.memory, ([used, limit]) => (used === null ? "?" : `${(used / MB).toFixed(0)} MB of ${limit ? `${(limit / MB).toFixed(0)} MB` : "no limit"}`)),
    top: 100,
    mark: 100,
  },
  { id: "requests", title: "Requests by status", unit: "a second", lines: (p) => statuses(p.requests), most: 5 },
  { id: "load", title: "Load average", unit: "one minute", lines: (p) => ({ load: p.load }), most: 1 },
  { id: "connections", title: "Postgres connections", unit: "by state", lines: (p) => p.connections ?? {}, most: 5 },
  {
    id: "transactions",
    title: "Postgres transactions",
    unit: "a second",
    lines: (p) => ({ commits: p.commits, rollbacks: p.rollbacks }),
    most: 5,
  },
];

// A name keeps its colour and dash, whatever else is drawn beside it.
const USUAL = {
  cpu: ["backend", "frontend", "postgres", "traefik"],
  requests: ["2xx", "4xx", "5xx", "3xx"],
  connections: ["active", "idle", "idle in transaction"],
  transactions: ["commits", "rollbacks"],
};
USUAL.memory = USUAL.cpu;
const given = {};

function place(chart, name) {
  const names = (given[chart.id] ??= [...(USUAL[chart.id] ?? [])]);
  if (!names.includes(name)) names.push(name);
  return names.indexOf(name) % COLOURS.length;
}

const points = [];
let end = Date.now() / 1000; // seconds since the epoch, by the host's clock
let waiting = false;

function map(object, change) {
  return Object.fromEntries(Object.entries(object ?? {}).map(([key, value]) => [key, change(value)]));
}

function statuses(requests) {
  if (!requests) return {};
  return { ...Object.fromEntries(CLASSES.filter((c) => c !== "3xx").map((c) => [c, 0])), ...requests };
}

function colour(name) {
  return getComputedStyle(document.body).getPropertyValue(name).trim();
}

export function startCharts() {
  for (const chart of CHARTS) {
    chart.plot = element("div", { class: "plot", id: `chart-${chart.id}` });
    chart.words = element("p", { class: "quiet", id: `chart-${chart.id}-words` });
    const figure = element(
      "figure",
      { "aria-labelledby": `chart-${chart.id}-title`, "aria-describedby": `chart-${chart.id}-words` },
      element("figcaption", { id: `chart-${chart.id}-title` }, chart.title, element("span", { class: "quiet" }, ` ${chart.unit}`)),
      chart.plot,
      chart.words,
    );
    $("charts").append(figure);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  document.addEventListener("visibilitychange", draw);
}

export function addPoints(added) {
  points.push(...added);
  if (points.length) end = points[points.length - 1].at;
  while (points.length && points[0].at < end - WINDOW) points.shift();
  draw();
}

// Without new values time goes on: the gap at the right edge grows.
export function advance(now) {
  $("charts").classList.toggle("old", !now.live && now.age !== null);
  if (points.length && now.age !== null) end = points[points.length - 1].at + now.age;
  if (!now.live) draw();
}

function draw() {
  if (waiting || document.hidden || !window.Plotly) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    for (const chart of CHARTS) drawOne(chart);
  });
}

function drawOne(chart) {
  const read = points.map((point) => chart.lines(point));
  const told = chart.told ? points.map((point) => chart.told(point)) : null;
  const names = [...new Set(read.flatMap((values) => Object.keys(values)))].sort();
  const times = points.map((point) => new Date(point.at * 1000));
  let highest = 0;
  const traces = names.map((name) => {
    const index = place(chart, name);
    const y = read.map((values) => values[name] ?? null);
    highest = Math.max(highest, ...y);
    return {
      type: "scatter",
      mode: "lines",
      name,
      x: times,
      y,
      connectgaps: false,
      text: told ? told.map((values) => values[name] ?? "?") : undefined,
      hovertemplate: told ? "%{text}" : "%{y:.1f}",
      line: { color: colour(COLOURS[index]), dash: DASHES[index], width: 2 },
    };
  });
  const last = read.length ? read[read.length - 1] : {};
  const lines = names.filter((name) => typeof last[name] === "number");
  chart.words.textContent = lines.length
    ? `Last: ${lines.map((name) => `${name} ${last[name].toFixed(last[name] < 10 ? 1 : 0)}`).join(", ")}`
    : points.length ? "no values now" : "no values yet";
  const ink = colour("--ink");
  const grid = colour("--rule");
  const axis = { gridcolor: grid, linecolor: grid, zerolinecolor: grid, fixedrange: true, color: ink };
  const top = chart.top ? Math.max(chart.top, highest) * 1.05 : Math.max(chart.most, highest * 1.15);
  window.Plotly.react(
    chart.plot,
    traces,
    {
      margin: { l: 42, r: 8, t: 6, b: 24 },
      height: 200,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: ink, size: 12, family: "system-ui, sans-serif" },
      showlegend: names.length > 1,
      legend: { orientation: "h", y: -0.18, x: 0, font: { size: 12 } },
      hovermode: "x unified",
      hoverlabel: { bgcolor: colour("--paper"), font: { color: ink } },
      xaxis: { ...axis, type: "date", range: [new Date((end - WINDOW) * 1000), new Date(end * 1000)], tickformat: "%H:%M:%S", nticks: 5 },
      yaxis: { ...axis, range: [0, top], nticks: 5 },
      shapes: chart.mark
        ? [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: chart.mark, y1: chart.mark, line: { color: colour("--alert"), width: 1, dash: "dash" } }]
        : [],
    },
    { displayModeBar: false, responsive: true },
  );
}

// What changes seldom: the release, the seed, objectives and runs. Looked at again each half
// minute while the page is seen, and after each job.

import { $, ask, cells, chip, duration, element, moment, problem, say, titles } from "./page.js";

const EVERY = 30000;

export function startFacts() {
  refresh();
  setInterval(() => document.hidden || refresh(), EVERY);
}

export function refresh() {
  return Promise.all([
    ask("/facts/release").then(showRelease),
    ask("/facts/seed").then(showSeed),
    ask("/facts/measured").then(showMeasured),
  ]);
}

const SERVICE_COLUMNS = ["Service", "Colour", "Health", "Since", "Image"];

function list(title, items) {
  if (!items.length) return null;
  return element("div", {}, element("h3", {}, title), element("ul", {}, ...items.map((item) => element("li", {}, ...[item].flat()))));
}

function shortImage(image) {
  const [name, digest] = image.split("@");
  return digest ? `${name.split("/").slice(1).join("/")}@${digest.slice(0, 19)}…` : image;
}

function showRelease(found) {
  const node = $("release");
  if (found.problem) {
    node.replaceChildren(element("p", { class: "problem" }, found.problem));
    return;
  }
  const kept = list(
    "Kept releases",
    found.kept.map((release) => (release.serving ? [release.id, " ", chip("serves", "normal")] : [release.id])),
  );
  const bad = list("Taken back", found.bad.map((release) => `${release.hash}: ${release.why}`));
  if (!found.serving) {
    const why = found.docker ? "Nothing is deployed yet." : "No engine answers on the host: nothing is deployed yet.";
    node.replaceChildren(element("p", {}, why), ...[kept, bad].filter(Boolean));
    return;
  }
  const serving = found.serving;
  const body = found.services.map((service) =>
    cells(
      SERVICE_COLUMNS,
      service.service,
      service.colour || "–",
      chip(service.health, service.good ? "normal" : "alert"),
      service.started ? moment(service.started) : "–",
      element("code", { title: service.image }, shortImage(service.image)),
    ),
  );
  const head = SERVICE_COLUMNS.map((name) => element("th", { scope: "col", role: "columnheader" }, name));
  node.replaceChildren(
    ...[
      element("p", {}, element("strong", {}, serving.id), ` serves since ${moment(serving.made)}`, element("span", { class: "quiet" }, ` made by ${serving.by || "?"}, revision ${serving.revision || "?"}`)),
      found.candidate ? element("p", {}, chip("candidate", "raised"), ` ${found.candidate} was pushed and does not serve (yet).`) : null,
      element("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": "Services" }, element("table", { role: "table" }, element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...head)), element("tbody", { role: "rowgroup" }, ...body))),
      list("Other containers", found.others.map((other) => `${other.service}: ${other.health}`)),
      kept,
      bad ?? element("p", { class: "quiet" }, "No release was taken back."),
    ].filter(Boolean),
  );
}

const NAMES = { organizations: "Organisations", buildings: "Buildings", units: "Units", owners: "Owners", expenses: "Expenses", users: "Users" };

function showSeed(found) {
  problem($("seed-problem"), found.problem);
  $("seed-generate").dataset.cannot = found.problem ? "yes" : "";
  if (found.problem) {
    $("seed-counts").replaceChildren();
    say($("seed-says"), "What is there is not known.");
  } else {
    $("seed-counts").replaceChildren(
      ...found.counts.map(([kind, count]) => element("div", {}, element("dt", {}, NAMES[kind]), element("dd", { "data-kind": kind }, String(count)))),
    );
    const others = found.others ? ` ${found.others} other organisations, which Clear does not touch.` : "";
    say($("seed-says"), `${found.says}${others}`);
  }
  unless("generate", found.problem ? "the host is not seen" : found.cannot_generate);
  unless("clear", found.problem ? "the host is not seen" : found.cannot_clear);
}

function unless(what, why) {
  say($(`cannot-${what}`), why);
  $(`seed-${what}`).dataset.cannot = why ? "yes" : "";
  $(`seed-${what}`).disabled = Boolean(why) || document.body.dataset.busy === "yes";
}

function number(value, digits = 0) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

function verdict(passed, words) {
  const level = passed === null ? "unknown" : passed ? "normal" : "alert";
  return chip(words, level);
}

function showMeasured(found) {
  if (found.problem) {
    say($("objectives-last"), found.problem);
    return;
  }
  const last = found.last;
  $("objectives-last").replaceChildren(
    ...(last
      ? [`Last judged: ${last.profile}, ${moment(last.began * 1000)}: `, verdict(last.passed, last.verdict)]
      : ["No run was judged yet: start one, or in a terminal: koprogo load realistic"]),
  );
  $("objectives").tBodies[0].replaceChildren(
    ...found.objectives.map((row) =>
      cells(
        titles($("objectives")),
        [row.label, row.ours ? element("span", { class: "why" }, "our own goal") : null].filter(Boolean),
        row.wanted,
        [row.measured || "–", row.judged_by ? element("span", { class: "why" }, `judged by ${row.judged_by}`) : null].filter(Boolean),
        row.met === null ? element("span", { class: "quiet" }, "not judged") : [chip(row.met ? "met" : "missed", row.met ? "normal" : "alert"), row.busy ? element("span", { class: "why" }, `busy then: ${row.busy}`) : null].filter(Boolean),
      ),
    ),
  );
  $("runs").tBodies[0].replaceChildren(...(found.runs.length ? found.runs.map(runRow) : [element("tr", { role: "row" }, element("td", { role: "cell", colSpan: 9 }, "No runs yet."))]));
  say($("runs-more"), found.more ? `${found.more} older ones: koprogo report takes their names.` : "");
}

function runRow(run) {
  if (run.problem) {
    return element("tr", { role: "row" }, element("th", { scope: "row", role: "rowheader" }, run.id), element("td", { role: "cell", colSpan: 8 }, chip("unreadable", "alert"), ` ${run.problem}`));
  }
  const link = element("a", { href: `/runs/${encodeURIComponent(run.id)}`, target: "_blank", rel: "noopener", "aria-label": `Report of ${run.id}` }, "Open");
  return cells(
    titles($("runs")),
    moment(run.began * 1000),
    run.profile,
    duration(run.seconds),
    run.asked === null ? "closed loop" : `${number(run.asked)} req/s`,
    `${number(run.achieved)} req/s`,
    run.p99 === null ? "–" : `${number(run.p99, run.p99 < 10 ? 1 : 0)} ms`,
    run.errors === null ? "–" : `${number(run.errors, 2)} %`,
    verdict(run.passed, run.verdict),
    link,
  );
}

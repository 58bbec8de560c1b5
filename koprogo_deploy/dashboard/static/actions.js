// What changes something: asked first, in a dialog that says what and where; then the job.

import { refresh } from "./facts.js";
import { $, duration, element, post, problem, say, show } from "./page.js";

const environment = document.body.dataset.environment;
const careful = document.body.dataset.careful === "yes";

const ASKED = {
  generate: {
    title: "Generate realistic data?",
    what: "Three organisations with 23 buildings, 190 units, 126 owners and their expenses are written to the database. What is there already stays; if the seed is there, nothing changes.",
    yes: "Generate",
  },
  clear: {
    title: "Clear the seeded data?",
    what: "Every seeded organisation is removed from the database with all that belongs to it, also what people added to it since. Other organisations are not touched. This cannot be undone.",
    yes: "Clear",
  },
  load: { title: "Start a load run?", yes: "Start" },
};

let wanted = null;
let job = null;
let announced = 0;

export function startActions() {
  for (const what of ["generate", "clear"]) {
    $(`seed-${what}`).addEventListener("click", () => askFor({ what }, ASKED[what].what));
  }
  $("load-form").addEventListener("submit", (event) => {
    event.preventDefault();
    askForLoad(new FormData(event.target));
  });
  const profile = $("load-form").elements.profile;
  const about = () => say($("profile-about"), profile.selectedOptions[0]?.dataset.about ?? "");
  profile.addEventListener("change", about);
  about();
  $("ask-no").addEventListener("click", () => $("ask").close());
  $("ask-form").addEventListener("submit", (event) => {
    event.preventDefault();
    confirmed();
  });
  $("ask-name").addEventListener("input", () => {
    $("ask-yes").disabled = $("ask-name").value !== environment;
  });
  $("job-cancel").addEventListener("click", async () => {
    $("job-cancel").disabled = true;
    const said = await post("/jobs/cancel", { number: job.number });
    if (said.problem) problem($("job-problem"), said.problem);
  });
}

function askForLoad(form) {
  const request = { what: "load", profile: form.get("profile") };
  const said = [];
  for (const name of ["rate", "seconds"]) {
    if (form.get(name)) request[name] = Number(form.get(name));
  }
  said.push(request.rate ? `${request.rate} requests a second` : "at its own rate");
  said.push(request.seconds ? `for ${request.seconds} seconds` : "for as long as it says");
  askFor(request, `The profile ${request.profile} sends real requests: ${said.join(", ")}. What it writes is marked and removed afterwards. Everybody who uses ${environment} meanwhile shares the machine with it.`);
}

function askFor(request, what) {
  wanted = request;
  const asked = ASKED[request.what];
  say($("ask-title"), asked.title);
  say($("ask-band"), `In the environment ${careful ? environment.toUpperCase() : environment}`);
  $("ask-band").className = `band ${environment} ${careful ? "careful" : ""}`;
  say($("ask-what"), what);
  say($("ask-right"), environment);
  show($("ask-type"), careful);
  $("ask-name").value = "";
  say($("ask-yes"), asked.yes);
  $("ask-yes").className = request.what === "clear" || careful ? "danger" : "primary";
  $("ask-yes").disabled = careful;
  problem($("ask-problem"), "");
  $("ask").showModal();
  (careful ? $("ask-name") : $("ask-no")).focus();
}

async function confirmed() {
  $("ask-yes").disabled = true;
  const said = await post("/jobs", { ...wanted, name: careful ? $("ask-name").value : environment });
  $("ask-yes").disabled = false;
  if (said.problem) {
    problem($("ask-problem"), said.problem);
    return;
  }
  $("ask").close();
  showJob(said);
  $("job").scrollIntoView({ block: "nearest" });
  say($("announcement"), `Started: ${said.title}`);
}

const STATES = {
  running: ["running", "raised"],
  stopping: ["stopping", "raised"],
  done: ["done", "normal"],
  failed: ["did not succeed", "alert"],
  stopped: ["stopped", "unknown"],
};

export function showJob(told) {
  if (job && told.number < job.number) return;
  const first = !job || job.number !== told.number;
  const ended = job && job.number === told.number && job.running && !told.running;
  job = told;
  show($("job"), true);
  say($("job-title"), told.title);
  const [words, level] = STATES[told.state];
  $("job-state").className = `chip ${level}`;
  say($("job-state"), words);
  say($("job-time"), told.running ? `for ${duration(told.seconds)}` : `after ${duration(told.seconds)}`);
  figures(told.progress, told.running);
  const lines = told.dropped ? [`(${told.dropped} earlier lines)`, ...told.lines] : told.lines;
  const output = $("job-output");
  const below = output.scrollHeight - output.scrollTop - output.clientHeight < 30;
  say(output, lines.join("\n"));
  if (below) output.scrollTop = output.scrollHeight;
  if (first) problem($("job-problem"), "");
  if (first) $("job-details").open = told.kind !== "load";
  say($("job-result"), told.result?.words ?? "");
  $("job-result").className = told.result ? (told.result.good ? "good" : "problem") : "";
  show($("job-cancel"), told.running);
  $("job-cancel").disabled = told.state === "stopping";
  const run = told.result?.run;
  show($("job-report"), Boolean(run));
  if (run) $("job-report").href = `/runs/${encodeURIComponent(run)}`;
  busy(told.running);
  if (ended || (first && !told.running)) {
    refresh();
    if (ended && announced !== told.number) {
      announced = told.number;
      say($("announcement"), `${told.title}: ${words}. ${told.result?.words ?? ""}`);
    }
  }
}

function figures(progress, running) {
  show($("job-figures"), Boolean(progress));
  if (!progress) return;
  const ms = (value) => (value === null || value === undefined ? "?" : `${value.toFixed(1)} ms`);
  const shown = [
    ["Phase", progress.phase ?? "?"],
    ["Asked", progress.asked === null ? "closed loop" : `${Math.round(progress.asked)} req/s`],
    ["Achieved", `${Math.round(progress.rate ?? 0)} req/s`],
    ["P50", ms(progress.p50)],
    ["P99", ms(progress.p99)],
    ["Errors", Object.entries(progress.errors).map(([kind, count]) => `${count} × ${kind}`).join(", ") || "none"],
    ["Left", running ? duration(progress.left ?? 0) : "–"],
  ];
  $("job-figures").replaceChildren(
    ...shown.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))),
  );
}

function busy(running) {
  document.body.dataset.busy = running ? "yes" : "no";
  for (const id of ["seed-generate", "seed-clear", "load-start"]) {
    $(id).disabled = running || $(id).dataset.cannot === "yes";
  }
}

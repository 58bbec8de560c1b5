// The values of this second, and whether they are of this second.

import { $, cells, chip, duration, element, problem, say, show, titles } from "./page.js";

const TROUBLES = ["raised", "alert", "unknown"];
const COLUMNS = ["cpu", "memory", "throttled", "faults", "killed", "restarts"];

function value(cell) {
  const parts = [element("span", { class: "value" }, cell.text)];
  if (TROUBLES.includes(cell.level)) parts.push(chip(cell.level, cell.level));
  if (cell.why) parts.push(element("span", { class: "why" }, cell.why));
  return parts;
}

function connection(state, text) {
  $("connection").dataset.state = state;
  say($("connection"), text);
}

export function showNow(now) {
  const never = now.age === null;
  if (now.live) {
    connection("live", "live");
    problem($("lost"), "");
  } else if (never) {
    const connecting = !now.problem || now.problem === "connecting";
    connection(connecting ? "connecting" : "lost", connecting ? "connecting …" : "host not seen");
    problem($("lost"), connecting ? "" : `The host is not seen: ${now.problem}. Trying again.`);
  } else {
    const ago = `last seen ${duration(now.age)} ago`;
    connection("lost", `lost, ${ago}`);
    // The age is in the header: here it would be read aloud each second.
    problem($("lost"), `The monitor is lost${now.problem ? `: ${now.problem}` : ""}. What follows is old. Trying again.`);
  }
  $("now").classList.toggle("old", !now.live && !never);
  if (!now.tiles) return;
  $("tiles").replaceChildren(
    ...now.tiles.map(([name, cell]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, ...value(cell))),
    ),
  );
  $("containers").tBodies[0].replaceChildren(
    ...now.containers.map((container) =>
      cells(titles($("containers")), container.name, chip(container.level, container.level), ...COLUMNS.map((column) => value(container[column]))),
    ),
  );
  const troubles = now.findings.map(([level, text]) => element("li", {}, chip(level, level), ` ${text}`));
  const [level, judged] = now.unjudged ? ["unknown", "Nothing is raised, but not all could be read."] : ["normal", "Nothing is raised."];
  $("findings").replaceChildren(...(troubles.length ? troubles : [element("li", {}, chip(level, level), ` ${judged}`)]));
  show($("unread"), now.unread.length > 0);
  say($("unread").querySelector("summary"), now.unread.length === 1 ? "1 value could not be read" : `${now.unread.length} values could not be read`);
  const list = $("unread").querySelector("ul");
  if (list.dataset.shown !== now.unread.join()) {
    list.dataset.shown = now.unread.join();
    list.replaceChildren(...now.unread.map((line) => element("li", {}, line)));
  }
}

export function showLost(seconds) {
  connection("lost", `lost, last seen ${duration(seconds)} ago`);
  problem($("lost"), "The dashboard does not answer: is koprogo dashboard still running? What follows is old.");
  $("now").classList.add("old");
  $("charts").classList.add("old");
}

// Connects the stream of events with the parts of the page.

import { startActions, showJob } from "./actions.js";
import { addPoints, advance, startCharts } from "./charts.js";
import { startFacts } from "./facts.js";
import { showLost, showNow } from "./now.js";

startCharts();
startFacts();
startActions();

const events = new EventSource("/events");
let heard = Date.now();

function on(name, take) {
  events.addEventListener(name, (event) => {
    heard = Date.now();
    take(JSON.parse(event.data));
  });
}

on("points", addPoints);
on("job", showJob);
on("now", (now) => {
  showNow(now);
  advance(now);
});

// The stream itself may end: what is on the page is then of the past, and says so.
setInterval(() => {
  const silent = (Date.now() - heard) / 1000;
  if (silent > 4) showLost(silent);
}, 1000);

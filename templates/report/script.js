"use strict";
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const config = {
    responsive: true, displaylogo: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  };

  // Light or dark: the system's, until the reader chooses.
  let chosen = null;
  const button = document.getElementById("theme");
  const theme = () => {
    const now = chosen || (dark.matches ? "dark" : "light");
    root.dataset.theme = now;
    button.textContent = now === "dark" ? "Light" : "Dark";
  };
  dark.addEventListener("change", theme);
  button.addEventListener("click", () => {
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    theme();
  });
  theme();

  // Charts on one run's time axis show the same stretch of it.
  const plots = [...document.querySelectorAll(".plot")];
  let moving = false;
  const follow = (source, change) => {
    const range = change["xaxis.range"] || [change["xaxis.range[0]"], change["xaxis.range[1]"]];
    const whole = change["xaxis.autorange"];
    if (moving || (!whole && range[0] === undefined)) return;
    moving = true;
    const end = Number(source.dataset.end);
    const shown = whole ? [0, end] : range;
    const others = plots.filter((p) => p.dataset.time && p.dataset.time === source.dataset.time);
    Promise.all(others.map((p) => Plotly.relayout(p, { "xaxis.range": [...shown] })))
      .finally(() => { moving = false; });
  };

  const draw = (plot) => {
    const { data, layout } = JSON.parse(document.getElementById(`${plot.id}-data`).textContent);
    if (innerWidth < 760) {
      // The legend stands below in short lines: the chart keeps its height above it.
      layout.margin = { ...layout.margin, l: 44, r: 6 };
      layout.height += 14 * Math.max(0, data.length - 2);
    }
    return Plotly.newPlot(plot, data, layout, config).then(() => {
      if (plot.dataset.time) plot.on("plotly_relayout", (change) => follow(plot, change));
    });
  };
  for (const plot of plots) draw(plot);

  for (const axis of document.querySelectorAll("button[data-axis]")) {
    axis.addEventListener("click", () => {
      const log = axis.getAttribute("aria-pressed") !== "true";
      axis.setAttribute("aria-pressed", String(log));
      axis.textContent = log ? "Linear axis" : "Logarithmic axis";
      Plotly.relayout(axis.dataset.axis, {
        "yaxis.type": log ? "log" : "linear", "yaxis.autorange": true,
      });
    });
  }

  // On paper a chart is as wide as the page, whatever the window was.
  const PAPER = 670, HALF = 312;
  addEventListener("beforeprint", () => {
    for (const plot of plots) {
      const width = plot.closest(".wide") ? PAPER : HALF;
      Plotly.relayout(plot, { autosize: false, width });
    }
  });
  addEventListener("afterprint", () => {
    for (const plot of plots) Plotly.relayout(plot, { autosize: true, width: null });
  });
})();

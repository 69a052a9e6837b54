"use strict";
// Draws the charts of the data block in the page's colours, and again when the colour scheme changes.
(function () {
  const charts = JSON.parse(document.getElementById("data").textContent);
  const scheme = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 600px)");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Colours stand in the data as var(--name), so that the style sheet alone decides on them.
  function coloured(value) {
    if (typeof value === "string") {
      const match = /^var\((--[a-z0-9-]+)\)$/.exec(value);
      return match ? colour(match[1]) : value;
    }
    if (Array.isArray(value)) return value.map(coloured);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, coloured(one)]));
    }
    return value;
  }

  function layoutOf(chart) {
    const axis = { gridcolor: colour("--grid"), zerolinecolor: colour("--line"), linecolor: colour("--line"), automargin: true };
    const layout = coloured(chart.layout);
    for (const name of Object.keys(layout).filter((key) => /^[xy]axis\d?$/.test(key))) {
      layout[name] = { ...axis, ...layout[name] };
      if (narrow.matches) layout[name].nticks = 5;
    }
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true,
      font: { color: colour("--text"), family: "system-ui, sans-serif", size: narrow.matches ? 11 : 12 },
      hoverlabel: { bgcolor: colour("--panel"), bordercolor: colour("--line"), font: { color: colour("--text") } },
      margin: { l: 8, r: 8, t: 8, b: 8 }, hovermode: "closest",
      // The legend is text of the page, which wraps where Plotly's own would cut.
      showlegend: false,
      ...layout,
    };
  }

  function draw() {
    for (const chart of charts) {
      const place = document.getElementById(chart.id);
      Plotly.react(place, coloured(chart.traces), layoutOf(chart), { responsive: true, displayModeBar: false, displaylogo: false });
    }
  }

  draw();
  scheme.addEventListener("change", draw);
  narrow.addEventListener("change", draw);
})();

// Curves over one axis, side by side. Knows uPlot; must not know the content: the script of the page calls
// batchsqlCurves for each group of panels, and batchsqlDraw once at the end.
//
// panel: { title, unit, lines: [{ name, stroke, values, fill, dash, constant }] }
// x: { values, range, label, over, at(index), names }; with names, each value is a step of its own and has a point.
(function () {
  "use strict";
  const HEIGHT = 210;
  // Two curves side by side on A4, and a case on one page.
  const PRINT_WIDTH = 325;
  const PRINT_HEIGHT = 160;
  const plots = [];
  let paper = false;

  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const highest = (values) => values.reduce((most, value) => (value > most ? value : most), 0);

  // A value between two gaps has no line, so it needs a point.
  const alone = (values) => [...values.keys()].filter((i) =>
    values[i] !== null && (values[i - 1] ?? null) === null && (values[i + 1] ?? null) === null);

  function figure(panel, x, sync, page) {
    const { el, measure } = page;
    // Beside each name its highest value, or the value under the cursor.
    const keys = panel.lines.map((line) => {
      const text = document.createTextNode("");
      const mark = el("i", line.dash ? { class: "dashed" } : {});
      mark.style.setProperty("--stroke", "var(--" + line.stroke + ")");
      return { line, text, node: el("span", { class: "key" }, mark, text) };
    });
    function read(index) {
      for (const { line, text } of keys) {
        const name = line.name ? line.name + " " : "";
        const away = index === null || index === undefined;
        text.data = line.constant ? name + measure(line.values[0])
          : !away ? name + measure(line.values[index]) + " at " + x.at(index)
          : x.names ? name : name + "max " + measure(highest(line.values));
      }
    }
    read(null);
    const host = el("div", { role: "img", "aria-label": panel.title + " over " + x.over + " in " + panel.unit + ": "
      + panel.lines.map((line) => (line.name + " highest " + measure(highest(line.values))).trim()).join(", ") });
    plots.push({ host, plot: null, make: (width) => build(panel, x, sync, read, host, width, page.compact) });
    return el("figure", { class: "curve" },
      el("figcaption", {}, el("b", {}, panel.title + ", " + panel.unit), el("span", { class: "keys" }, keys.map((key) => key.node))), host);
  }

  function build(panel, x, sync, read, host, width, compact) {
    const font = "12px " + getComputedStyle(document.body).fontFamily;
    const axis = { font, labelFont: font, stroke: color("muted"), labelGap: 2, labelSize: 18,
      grid: { stroke: color("line"), width: 1 }, ticks: { stroke: color("line"), width: 1, size: 4 }, gap: 4 };
    const most = highest(panel.lines.flatMap((line) => line.values)) || 1;
    return new uPlot({
      width, height: paper ? PRINT_HEIGHT : HEIGHT, padding: [8, 14, 0, 0], legend: { show: false },
      cursor: { sync: { key: sync }, drag: { x: false, y: false }, y: false, points: { size: 6 } },
      hooks: { setCursor: [(u) => read(u.cursor.idx)] },
      scales: { x: { time: false, range: () => x.range }, y: { range: () => [0, most * 1.08] } },
      axes: [
        { ...axis, label: x.label, size: 26, space: 56,
          ...(x.names ? { splits: () => x.values, values: (_, ticks) => ticks.map((tick) => x.names[tick]) } : {}) },
        { ...axis, label: panel.unit, space: 34, values: (_, ticks) => ticks.map((tick) => compact.format(tick)),
          // As wide as its longest label, so that none is cut off, and mostly the same everywhere, so that
          // the time axes of curves above each other are aligned.
          size: (u, labels) => (labels || []).reduce((most, text) => Math.max(most, 12 + text.length * 7), 44) },
      ],
      series: [{}, ...panel.lines.map((line) => ({
        label: line.name || panel.title, stroke: color(line.stroke), width: 1.5, dash: line.dash,
        fill: line.fill ? color(line.stroke) + "1f" : undefined,
        points: line.constant ? { show: false } : x.names ? { show: true, size: 6 } : { size: 4, filter: (u, series, all) => (all ? null : alone(line.values)) },
      }))],
    }, [x.values, ...panel.lines.map((line) => line.values)], host);
  }

  function draw() {
    // All widths first, because reading one after a change to the page forces a layout.
    const widths = plots.map(({ host }) => (paper ? PRINT_WIDTH : Math.floor(host.clientWidth)));
    plots.forEach((entry, i) => {
      if (entry.plot) entry.plot.destroy();
      entry.plot = widths[i] > 0 ? entry.make(widths[i]) : null;
    });
  }

  function onPaper(yes) {
    paper = yes;
    document.documentElement.dataset.theme = yes ? "light" : "";
    draw();
  }

  window.batchsqlHighest = highest;
  window.batchsqlCurves = function (panels, x, sync, page) {
    return page.el("div", { class: "curves" }, panels.map((panel) => figure(panel, x, sync, page)));
  };
  window.batchsqlDraw = function () {
    draw();
    let width = document.documentElement.clientWidth;
    let waiting = 0;
    window.addEventListener("resize", () => {
      if (paper || width === document.documentElement.clientWidth) return;
      width = document.documentElement.clientWidth;
      clearTimeout(waiting);
      waiting = setTimeout(draw, 120);
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (!paper) draw(); });
    window.addEventListener("beforeprint", () => onPaper(true));
    window.addEventListener("afterprint", () => onPaper(false));
  };
})();

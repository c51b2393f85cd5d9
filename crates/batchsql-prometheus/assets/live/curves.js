// A panel's curves: canvas, legend and the values under the cursor. Knows uPlot and lines; not where they come from.
(function (live) {
  "use strict";
  const { measure, compact, clock } = live.figures;
  const HEIGHT = 190;
  const SLOTS = 8;

  // Elements with attributes and children; texts become text nodes, never markup.
  function el(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
    node.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return node;
  }

  // --- Colours: of the theme, read once; of a name, the same while the page is open ------------------------
  const tones = new Map();
  function tone(name) {
    if (!tones.has(name)) tones.set(name, getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim());
    return tones.get(name);
  }
  const forgetTones = () => tones.clear();

  function hash(name) {
    let value = 5381;
    for (let i = 0; i < name.length; i++) value = (value * 33 + name.charCodeAt(i)) >>> 0;
    return value % SLOTS;
  }

  // Gives every line without a tone a tone that is unique in the panel.
  function paint(lines, slots) {
    const taken = new Set(lines.map((line) => line.tone).filter(Boolean));
    const open = lines.filter((line) => !line.tone);
    for (const line of open) {
      const had = slots.get(line.name);
      if (had && !taken.has(had)) { line.tone = had; taken.add(had); }
    }
    for (const line of open) {
      if (line.tone) continue;
      const first = hash(line.name);
      for (let step = 0; step < SLOTS && !line.tone; step++) {
        const candidate = "s" + ((first + step) % SLOTS);
        if (!taken.has(candidate)) line.tone = candidate;
      }
      line.tone = line.tone || "rest";
      taken.add(line.tone);
      slots.set(line.name, line.tone);
    }
  }

  // A value between two gaps has no line, so it needs a point.
  const alone = (values) => [...values.keys()].filter((i) =>
    values[i] !== null && (values[i - 1] ?? null) === null && (values[i + 1] ?? null) === null);

  class Curve {
    constructor(panel) {
      this.panel = panel;
      this.slots = new Map();
      this.hidden = new Set();
      this.lines = [];
      this.times = [];
      this.markers = [];
      this.window = [0, 1];
      this.shape = "";
      this.plot = null;
      this.cursor = null;
      this.figure = panel.figure || ((value) => measure(value));
      this.keys = el("ul", { class: "keys", "aria-label": "Lines of " + panel.title });
      this.host = el("div", { class: "plot", role: "img", tabindex: "0", "aria-label": panel.title });
      this.tip = el("div", { class: "tip", hidden: "" });
      this.nothing = el("p", { class: "nothing" }, panel.empty);
      this.node = el("article", { class: "panel", id: panel.id, "aria-labelledby": panel.id + "-title" },
        el("header", {}, el("h3", { id: panel.id + "-title" }, panel.title), el("span", { class: "unit" }, panel.unit)),
        this.keys, el("div", { class: "stage" }, this.host, this.nothing, this.tip),
        el("p", { class: "about" }, panel.about));
      this.host.addEventListener("keydown", (event) => this.step(event));
      this.host.addEventListener("blur", () => this.leave());
    }

    // New values. `times` are milliseconds, `window` is the start and the end of the shown range.
    update(lines, times, window, markers) {
      paint(lines, this.slots);
      this.lines = lines;
      this.times = times;
      this.window = window.map((ms) => ms / 1000);
      this.markers = markers;
      this.nothing.hidden = lines.length > 0;
      this.host.classList.toggle("bare", lines.length === 0);
      const shape = JSON.stringify(lines.map((line) => [line.name, line.tone, this.hidden.has(line.name)]));
      const data = [Array.from(times, (ms) => ms / 1000),
        ...lines.map((line) => Array.from(line.values, (value) => (Number.isFinite(value) ? value : null)))];
      if (shape !== this.shape || this.plot === null) {
        this.shape = shape;
        this.list();
        this.build(data);
      } else {
        this.plot.setData(data);
      }
      this.read();
      this.host.setAttribute("aria-label", this.panel.title + ", " + (lines.length === 0 ? this.panel.empty
        : "now: " + lines.map((line) => line.name + " " + this.figure(line.values[line.values.length - 1])).join(", ")
          + " " + this.panel.unit));
    }

    // After a change of theme or width.
    redraw() {
      const width = Math.floor(this.host.clientWidth);
      if (this.plot && width > 0 && width !== this.plot.width) this.plot.setSize({ width, height: HEIGHT });
      else if (this.plot) this.plot.redraw();
    }

    list() {
      this.figures = this.lines.map(() => document.createTextNode(""));
      this.keys.replaceChildren(...this.lines.map((line, i) => {
        const mark = el("i", { "aria-hidden": "true" });
        mark.style.setProperty("--stroke", "var(--" + line.tone + ")");
        const isShown = !this.hidden.has(line.name);
        const button = el("button", { type: "button", "aria-pressed": String(isShown), title: (isShown ? "Hide " : "Show ") + line.name },
          mark, el("span", { class: "name" }, line.name), el("b", {}, this.figures[i]));
        button.addEventListener("click", () => this.toggle(line.name));
        return el("li", {}, button);
      }));
    }

    toggle(name) {
      if (!this.hidden.delete(name)) this.hidden.add(name);
      const held = this.lines.findIndex((line) => line.name === name);
      this.update(this.lines, this.times, this.window.map((s) => s * 1000), this.markers);
      const button = this.keys.querySelectorAll("button")[held];
      if (button) button.focus();
    }

    build(data) {
      if (this.plot) this.plot.destroy();
      this.plot = null;
      this.tip.hidden = true;
      if (this.lines.length === 0) return;
      const { panel } = this;
      const font = "12px " + getComputedStyle(document.body).fontFamily;
      const axis = { font, stroke: () => tone("muted"), grid: { stroke: () => tone("grid"), width: 1 }, ticks: { show: false }, gap: 6 };
      // The current lines, not those at the time of the build.
      const bound = (pick, start) => this.lines.filter((line) => !this.hidden.has(line.name))
        .reduce((found, line) => line.values.reduce((best, value) => (pick(value, best) ? value : best), found), start);
      const highest = () => bound((value, best) => value > best, 0);
      const range = () => {
        if (panel.top) return [0, Math.max(panel.top, highest() * 1.05)];
        if (panel.range) {
          const lowest = bound((value, best) => value < best, Infinity);
          return [lowest < panel.range[0] ? Math.max(0, Math.floor(lowest - 5)) : panel.range[0], panel.range[1] + 0.4];
        }
        return [0, Math.max(highest() * 1.12, panel.whole ? 1.15 : 1e-9)];
      };
      // A label at the right edge would be cut off.
      const isCut = (u, tick) => ((this.window[1] - tick) / (this.window[1] - this.window[0])) * (u.width - 60) < 24;
      const line = ({ name, tone: own, fill, wide }, i) => ({
        label: name, show: !this.hidden.has(name), stroke: () => tone(own), width: wide ? 2 : 1.6,
        fill: fill || this.lines.length === 1 ? () => tone(own) + "1c" : undefined,
        points: { size: 4, fill: () => tone(own), filter: (u, series, all) => (all ? null : alone(u.data[i + 1])) },
      });
      this.plot = new uPlot({
        width: Math.max(80, Math.floor(this.host.clientWidth)), height: HEIGHT, padding: [8, 8, 0, 0], legend: { show: false },
        cursor: { sync: { key: "batchsql" }, drag: { x: false, y: false }, y: false, points: { size: 7 } },
        hooks: { setCursor: [(u) => this.point(u)], draw: [(u) => this.mark(u)] },
        scales: { x: { time: true, range: () => this.window }, y: { range } },
        axes: [
          { ...axis, size: 26, space: 70, grid: { show: false }, values: (u, ticks) => ticks.map((tick) => (isCut(u, tick) ? "" : clock(tick * 1000, ticks.length < 2 || ticks[1] - ticks[0] < 60))) },
          { ...axis, space: 36, incrs: panel.whole ? [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] : undefined, values: (_, ticks) => ticks.map((tick) => compact(tick)),
            size: (u, labels) => (labels || []).reduce((most, text) => Math.max(most, 12 + text.length * 7), 44) },
        ],
        series: [{}, ...this.lines.map(line)],
      }, data, this.host);
    }

    // Ends of test cases and restarts of the exporter, as dashed lines.
    mark(u) {
      const { ctx, bbox } = u;
      ctx.save();
      ctx.lineWidth = devicePixelRatio;
      ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
      for (const marker of this.markers) {
        const x = Math.round(u.valToPos(marker.at / 1000, "x", true));
        if (x < bbox.left || x > bbox.left + bbox.width) continue;
        ctx.strokeStyle = tone(marker.tone);
        ctx.globalAlpha = 0.75;
        ctx.beginPath();
        ctx.moveTo(x, bbox.top);
        ctx.lineTo(x, bbox.top + bbox.height);
        ctx.stroke();
      }
      ctx.restore();
    }

    point(u) {
      this.cursor = u.cursor.left >= 0 ? u.cursor.idx : null;
      this.read();
      // Only the plot with the pointer or the keyboard focus shows values beside the cursor.
      const isHere = this.cursor !== null && this.cursor !== undefined && (this.byKeys || u.over.matches(":hover"));
      this.tip.hidden = !isHere;
      if (isHere) this.tell(u);
    }

    tell(u) {
      const at = this.times[this.cursor];
      const near = this.markers.filter((marker) => Math.abs(u.valToPos(marker.at / 1000, "x") - u.cursor.left) < 6);
      this.tip.replaceChildren(el("time", {}, clock(at)),
        ...this.lines.filter((line) => !this.hidden.has(line.name)).map((line) => {
          const mark = el("i", {});
          mark.style.setProperty("--stroke", "var(--" + line.tone + ")");
          return el("div", {}, mark, el("span", { class: "name" }, line.name), el("b", {}, this.figure(line.values[this.cursor])));
        }), ...near.map((marker) => el("p", {}, marker.text)));
      const left = u.over.offsetLeft + u.cursor.left;
      const isRight = u.cursor.left > u.over.clientWidth / 2;
      this.tip.style.left = isRight ? "auto" : left + 12 + "px";
      this.tip.style.right = isRight ? this.host.clientWidth - left + 12 + "px" : "auto";
    }

    // The legend: the value under the cursor, otherwise the newest one.
    read() {
      if (!this.figures) return;
      const last = this.times.length - 1;
      const at = this.cursor === null || this.cursor === undefined || this.cursor > last ? last : this.cursor;
      this.lines.forEach((line, i) => { if (this.figures[i]) this.figures[i].data = this.figure(line.values[at]); });
    }

    // Arrow keys move the cursor of all plots.
    step(event) {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (event.key === "Escape") return this.leave();
      if (by === undefined || this.plot === null) return undefined;
      event.preventDefault();
      const last = this.times.length - 1;
      const now = this.cursor === null || this.cursor === undefined ? last + 1 : this.cursor;
      const next = Math.min(last, Math.max(0, now + by));
      this.byKeys = true;
      return this.plot.setCursor({ left: this.plot.valToPos(this.times[next] / 1000, "x"), top: 20 });
    }

    leave() {
      this.byKeys = false;
      this.tip.hidden = true;
      if (this.plot) this.plot.setCursor({ left: -10, top: -10 });
    }
  }

  live.curves = { Curve, el, forgetTones };
})(window.batchsqlLive = window.batchsqlLive || {});

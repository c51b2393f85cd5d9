// The page: its layout, controls and states. Every text goes through text nodes, so that
// the name of a table or a test case is never parsed as markup. Data is kept only in memory.
(function (live) {
  "use strict";
  const { el, Curve, forgetTones } = live.curves;
  const { count, measure, percent, clock, long } = live.figures;
  const { PANELS } = live.panels;
  const MINUTE = 60000;
  // Maximum number of shown rows of a table.
  const ROWS = 40;
  const byId = (id) => document.getElementById(id);

  const history = new live.History();
  const view = { database: "", test_case: "", window: MINUTE, pausedAt: 0 };
  const state = { kind: "connecting", since: Date.now(), reason: "" };
  // Milliseconds that the server's clock is ahead; shown only if it cannot be the delay of a response.
  let ahead = 0;
  let markers = [];
  const curves = PANELS.map((panel) => new Curve(panel));
  const tiles = new Map();

  // --- Selection --------------------------------------------------------------------------------------------
  const databases = () => [...new Set(["bufferRecords", "outcomes", "processed", "rps", "success", "memory"]
    .flatMap((id) => history.cells(id).map((cell) => cell.labels.get("database"))))].sort();
  const testCases = () => [...new Set(["rps", "success", "processed"]
    .flatMap((id) => history.cells(id, { database: view.database }).map((cell) => cell.labels.get("test_case"))).filter(Boolean))].sort();

  function look() {
    const known = databases();
    const until = view.pausedAt || history.last;
    // A few seconds more than are shown: rates at the left edge need earlier points.
    const [from, end] = history.range(until - view.window - 6000);
    let to = end;
    while (to > from && history.times[to - 1] > until) to -= 1;
    const filter = { database: view.database, test_case: view.test_case };
    return { history, from, to, until, filter, manyDatabases: known.length > 1 && !view.database, cells: (id) => history.cells(id, filter) };
  }

  // --- Drawing ------------------------------------------------------------------------------------------------------
  function drawCurves() {
    const sight = look();
    const times = history.times.slice(sight.from, sight.to);
    for (const curve of curves) curve.update(curve.panel.lines(sight), times, [sight.until - view.window, sight.until], markers);
  }

  function drawFigures() {
    const sight = { ...look(), from: 0, to: history.end };
    const serverNow = Date.now() + ahead;
    const logTiles = live.panels.logTiles(sight, serverNow);
    const feedTiles = live.panels.feedTiles(sight, serverNow);
    show(byId("durable"), logTiles.length > 0);
    show(byId("fed"), feedTiles.length > 0);
    const grouped = (tiles, group) => tiles.map((tile) => ({ ...tile, group }));
    for (const tile of [...live.panels.tiles(sight, serverNow), ...grouped(logTiles, "log-tiles"), ...grouped(feedTiles, "feed-tiles")]) {
      const { node, figure, unit, note, bar } = tiles.get(tile.id) || addTile(tile);
      figure.data = tile.figure;
      unit.data = tile.unit ? " " + tile.unit : "";
      note.data = tile.note;
      node.dataset.tone = tile.tone || "";
      node.dataset.value = String(tile.value);
      if (bar) bar.style.setProperty("--share", Math.min(100, tile.share) + "%");
    }
    const [build, started] = ["build", "started"].map((id) => history.cells(id).find((cell) => cell.tick === history.tick));
    byId("version").textContent = build ? build.labels.get("version") : "";
    byId("uptime").textContent = started ? "up " + long(serverNow / 1000 - started.now) : "";
    const cases = live.panels.cases(sight);
    const tables = live.panels.tables(sight);
    show(byId("cases"), cases.length > 0);
    show(byId("tests"), cases.length > 0);
    show(byId("no-tests"), cases.length === 0);
    show(byId("tables"), tables.length > 0);
    caseTable.update(cases.slice(0, ROWS));
    tableTable.update(tables.slice(0, ROWS));
    const of = (result) => cases.filter((row) => row.result === result).length;
    byId("cases-note").textContent = count(of("passed")) + " passed, " + count(of("failed")) + " failed"
      + (of("waiting") > 0 ? ", " + count(of("waiting")) + " waiting" : "") + more(cases);
    byId("tables-note").textContent = count(tables.length) + (tables.length === 1 ? " table" : " tables, the busiest first") + more(tables);
    const perSecond = tiles.get("rows-per-second").figure.data;
    document.title = (view.database ? view.database + " " : "") + perSecond + " rows/s – BatchSQL";
  }

  const more = (rows) => (rows.length > ROWS ? "; " + count(rows.length - ROWS) + " more are not shown" : "");
  const show = (node, isShown) => { node.hidden = !isShown; };

  function addTile({ id, name, lead, share, group }) {
    const [figure, unit, note] = ["", "", ""].map((text) => document.createTextNode(text));
    const bar = share === undefined ? null : el("span", { class: "bar", "aria-hidden": "true" });
    const node = el("div", { class: "tile", id: "tile-" + id },
      el("dt", {}, name), el("dd", {}, el("b", {}, figure, el("small", {}, unit)), bar, el("span", { class: "note" }, note)));
    byId(group || (lead ? "lead" : "rest")).append(node);
    tiles.set(id, { node, figure, unit, note, bar });
    return tiles.get(id);
  }

  const name = (row) => [(databases().length > 1 ? row.database + " / " : "") + row.name, "name"];
  const caseTable = new live.Table("Test cases", [
    ["Test case", "", name],
    ["Result", "", (row) => [row.result[0].toUpperCase() + row.result.slice(1), "status " + row.result.replace(" ", "-")]],
    ["Rate", "rows/s", (row) => [measure(row.rate), ""], true],
    ["Integrity", "%", (row) => [percent(row.integrity), row.integrity < 100 ? "status failed" : ""], true],
    ["Rows found", "", (row) => [count(row.actual), ""], true],
    ["Rows submitted", "", (row) => [count(row.submitted), ""], true],
    ["Duration", "s", (row) => [measure(row.duration), ""], true],
  ]);
  const tableTable = new live.Table("Tables", [
    ["Table", "", name],
    ["Rate", "rows/s", (row) => [measure(row.rate), ""], true],
    ["Rows written", "", (row) => [count(row.written), ""], true],
    ["Rejected", "", (row) => [count(row.rejected), row.rejected > 0 ? "status failed" : ""], true],
    ["Other outcomes", "", (row) => [count(row.other), ""], true],
  ]);

  function options(select, all, values) {
    const known = JSON.stringify(values);
    if (select.dataset.known === known) return;
    select.dataset.known = known;
    const chosen = select.value;
    // The selection stays, even if the value is currently missing.
    const offered = chosen && !values.includes(chosen) ? [...values, chosen] : values;
    select.replaceChildren(el("option", { value: "" }, all), ...offered.map((value) => el("option", { value }, value)));
    select.value = chosen;
  }

  // --- States -------------------------------------------------------------------------------------------------------
  const WORDS = { connecting: "Connecting", live: "Live", lost: "Connection lost", token: "Locked", password: "Locked", denied: "Locked", defect: "Defect" };

  function tell({ kind, reason }) {
    if (kind === "lost" && state.kind !== "lost" && history.end > 0) history.gap(Date.now());
    if (kind !== state.kind) Object.assign(state, { kind, since: Date.now() });
    state.reason = reason;
    drawState();
  }

  function drawState() {
    const { kind } = state;
    const isEmpty = kind === "live" && databases().length === 0;
    const hasSeen = databases().length > 0;
    const word = isEmpty ? "Waiting" : WORDS[kind] + (kind === "live" && view.pausedAt ? ", curves paused" : "");
    document.documentElement.dataset.state = isEmpty ? "empty" : kind;
    if (byId("status-word").textContent !== word) byId("status-word").textContent = word;
    show(byId("empty"), isEmpty);
    show(byId("content"), hasSeen);
    // Without curves, pause and time range have no effect.
    show(byId("pause"), hasSeen);
    show(byId("window"), hasSeen);
    for (const id of ["token", "password", "denied", "defect"]) show(byId(id), kind === id);
    for (const id of ["token", "password"]) {
      byId(id + "-reason").textContent = kind === id ? state.reason : "";
      show(byId(id + "-reason"), kind === id && state.reason !== "");
    }
    if (kind === "defect" && byId("defect-reason").textContent !== state.reason) byId("defect-reason").textContent = state.reason;
    show(byId("lost"), kind === "lost");
    if (kind === "lost") {
      byId("lost-since").textContent = "since " + clock(state.since);
      byId("lost-reason").textContent = state.reason + (hasSeen ? " What you see is from the last answer." : "") + " This page tries again by itself.";
    }
    if (isEmpty) document.title = "Waiting – BatchSQL";
    else if (kind !== "live") document.title = WORDS[kind] + " – BatchSQL";
  }

  function take(text, serverClock) {
    const now = Date.now();
    const skew = serverClock - now;
    ahead = Math.abs(skew) > 2500 ? skew : 0;
    if (history.take(text, now)) markers.push({ at: now, tone: "muted", text: "The process was restarted" });
    for (const end of history.cells("completion")) {
      if (end.changed !== history.tick) continue;
      const [database, name] = [end.labels.get("database"), end.labels.get("test_case")];
      const passed = history.cells("success", { database, test_case: name }).some((cell) => cell.now === 1);
      markers.push({ at: now, tone: passed ? "passed" : "failed", text: name + (passed ? " passed" : " failed"), database, test_case: name });
    }
    markers = markers.filter((marker) => now - marker.at < 15 * MINUTE).slice(-300);
    options(byId("database"), "All databases", databases());
    options(byId("test-case"), "All test cases", testCases());
    show(byId("database-field"), databases().length > 1);
    show(byId("case-field"), testCases().length > 0);
    drawState();
    if (databases().length === 0) return;
    drawFigures();
    if (!view.pausedAt && !document.hidden) drawCurves();
  }

  // --- Controls -----------------------------------------------------------------------------------------------------
  const isDark = () => getComputedStyle(document.documentElement).colorScheme === "dark";

  function recolor() {
    forgetTones();
    const button = byId("theme");
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", "Switch to the " + (isDark() ? "light" : "dark") + " theme");
    for (const curve of curves) curve.redraw();
  }

  function control(poller) {
    for (const [id, field] of [["database", "database"], ["test-case", "test_case"]]) {
      byId(id).addEventListener("change", (event) => {
        view[field] = event.target.value;
        drawFigures();
        drawCurves();
      });
    }
    for (const radio of document.querySelectorAll("input[name=window]")) {
      radio.checked = Number(radio.value) * MINUTE === view.window;
      radio.addEventListener("change", () => { view.window = Number(radio.value) * MINUTE; drawCurves(); });
    }
    byId("pause").addEventListener("click", () => {
      view.pausedAt = view.pausedAt ? 0 : history.last || Date.now();
      byId("pause").setAttribute("aria-pressed", String(view.pausedAt > 0));
      byId("pause").textContent = view.pausedAt ? "Resume" : "Pause";
      drawState();
      if (!view.pausedAt && databases().length > 0) drawCurves();
    });
    byId("theme").addEventListener("click", () => {
      document.documentElement.dataset.theme = isDark() ? "light" : "dark";
      recolor();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolor);
    byId("token-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const token = byId("token-value").value.trim();
      byId("token-value").value = "";
      if (token !== "") poller.tryToken(token);
    });
    byId("password-form").addEventListener("submit", (event) => {
      event.preventDefault();
      poller.tryPassword(byId("user-value").value, byId("password-value").value);
      byId("password-value").value = "";
    });
    byId("retry").addEventListener("click", () => poller.again());
    document.addEventListener("visibilitychange", () => { if (!document.hidden && !view.pausedAt && databases().length > 0) drawCurves(); });
    let width = 0;
    new ResizeObserver(() => {
      if (width === document.documentElement.clientWidth) return;
      width = document.documentElement.clientWidth;
      for (const curve of curves) curve.redraw();
    }).observe(document.documentElement);
    // Updates the duration of a lost connection.
    setInterval(() => { if (state.kind === "lost") byId("lost-for").textContent = "(" + long((Date.now() - state.since) / 1000) + ")"; }, 1000);
  }

  for (const curve of curves) byId(curve.panel.group).append(curve.node);
  byId("cases").append(caseTable.node);
  byId("tables").append(tableTable.node);
  for (const link of document.querySelectorAll("a[data-beside]")) link.href = live.poll.beside(link.dataset.beside);
  byId("address").textContent = location.host;
  const poller = new live.poll.Poller(take, tell);
  control(poller);
  recolor();
  drawState();
  poller.run();
  // For tests.
  live.page = { history, curves, view, poller, markers: () => markers };
})(window.batchsqlLive = window.batchsqlLive || {});

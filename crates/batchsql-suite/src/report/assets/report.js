// The content of report.html from the data beside it, with the elements of elements.js and the plots of curves.js.
(function () {
  "use strict";
  const report = JSON.parse(document.getElementById("report-data").textContent);
  const main = document.getElementById("report");

  const { el, NONE, compact, missing, count, measure } = window.batchsqlPage;

  function facts(pairs, kind) {
    return el("dl", { class: "facts " + (kind || "") },
      pairs.filter(Boolean).map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]).flat());
  }

  // Rounded down: 100 only if nothing is missing.
  const percent = (value) => (missing(value) ? NONE : value === 100 ? "100" : String(Math.floor(value * 1e4) / 1e4));
  function seconds(value) {
    if (missing(value)) return NONE;
    if (value < 120) return measure(value) + " s";
    const rounded = Math.round(value);
    const rest = rounded % 60;
    return Math.floor(rounded / 60) + " min" + (rest === 0 ? "" : " " + String(rest).padStart(2, "0") + " s");
  }
  const plural = (n, word) => count(n) + " " + word + (n === 1 ? "" : "s");

  // --- Cases ----------------------------------------------------------------------------------------
  const cases = report.results.map((data, index) => ({
    data, id: "case-" + (index + 1), ran: !data.skipped,
    status: data.skipped ? "skipped" : data.success ? "passed" : "failed",
  }));
  const manyDatabases = new Set(report.results.map((data) => data.database)).size > 1;
  const label = (data) => (manyDatabases ? data.database + " / " : "") + data.test_name;
  // A row is accepted and then has one of the other outcomes; unknown outcomes follow.
  const WALK = ["submitted", "accepted", "written", "inserted", "updated", "ignored", "rejected", "failed"];
  const place = (name) => (WALK.includes(name) ? WALK.indexOf(name) : WALK.length);
  const balance = (data) => Object.entries(data.balance)
    .sort(([a], [b]) => place(a) - place(b));
  const status = (kind) => el("span", { class: "status " + kind }, kind[0].toUpperCase() + kind.slice(1));
  const rate = (data) => measure(data.records_per_second) + (data.rps_valid ? "" : "*");
  const at = (latency, field) => (latency ? measure(latency[field]) : NONE);

  function top() {
    const { summary, generated_at } = report;
    const kind = summary.success ? "passed" : "failed";
    const word = summary.success ? "Passed" : summary.failed > 0 ? "Failed" : summary.interrupted ? "Interrupted" : "Nothing passed";
    document.title = word + " \u2013 BatchSQL integration report";
    const tally = [
      summary.passed + " of " + plural(summary.total, "case") + " passed",
      summary.failed + " failed", summary.skipped + " skipped",
      count(summary.records) + " records", seconds(summary.duration_seconds),
    ].join(", ");
    const time = generated_at.replace("T", " ").replace(/(\.\d+)?(Z|\+00:00)$/, " UTC");
    const failed = cases.filter((entry) => entry.status === "failed");
    return el("header", {},
      el("p", { class: "eyebrow" }, "BatchSQL " + report.environment.batchsql_version + " \u00b7 " + time),
      el("h1", {}, "Integration report"),
      el("div", { class: "verdict " + kind },
        el("strong", {}, word), el("div", {}, tally),
        summary.interrupted ? el("div", {}, "The run was stopped before its end.") : null,
        failed.length ? el("div", {}, "Failed: ", failed.flatMap((entry, i) =>
          [i ? ", " : "", el("a", { href: "#" + entry.id }, label(entry.data))])) : null));
  }

  function setting() {
    const { environment: env, config } = report;
    const databases = env.databases.map((db) => el("div", {}, [db.name, db.version].join(" ") + (db.location ? ", " + db.location : "")));
    const memory = missing(env.memory_total_bytes) ? "" : ", " + measure(env.memory_total_bytes / 2 ** 30) + " GiB memory";
    return el("section", { class: "pair", "aria-label": "Environment and configuration" },
      el("div", {}, el("h4", {}, "Environment"), facts([
        ["Databases", databases.length ? el("div", {}, databases) : NONE],
        ["Machine", env.os + " " + env.arch + ", " + plural(env.cpus, "processor") + memory],
        env.rust_version ? ["Compiler", env.rust_version] : null,
        ["Metrics port", String(config.metrics_port)],
      ])),
      el("div", {}, el("h4", {}, "Configuration"), facts([
        ["Load", plural(config.workers, "worker") + ", " + count(config.records_per_worker) + " records each, " + seconds(config.duration_seconds) + " per case at most"],
        ["Batch", count(config.batch_size) + " rows or " + measure(config.flush_interval_ms) + " ms"],
        ["Buffer", count(config.buffer_size) + " rows"],
      ])));
  }

  function overview() {
    const columns = [
      ["Case", "", (c) => el("a", { href: "#" + c.id }, c.data.test_name)],
      manyDatabases ? ["Database", "", (c) => c.data.database] : null,
      ["Status", "", (c) => status(c.status)],
      ["Records", "", (c) => count(c.data.total_records), 1],
      ["Rate", "rec/s", (c) => rate(c.data), 1],
      ["Batch p50", "ms", (c) => at(c.data.batch_latency, "p50_ms"), 1],
      ["Batch p99", "ms", (c) => at(c.data.batch_latency, "p99_ms"), 1],
      ["Row p50", "ms", (c) => at(c.data.row_latency, "p50_ms"), 1],
      ["Row p99", "ms", (c) => at(c.data.row_latency, "p99_ms"), 1],
      ["Peak memory", "MB", (c) => measure(c.data.memory.peak_mb), 1],
      ["Integrity", "%", (c) => percent(c.data.data_integrity_rate), 1],
      ["Duration", "s", (c) => measure(c.data.duration), 1],
    ].filter(Boolean);
    // With the roles it stays a table for screen readers when a phone shows cards.
    const head = el("tr", { role: "row" }, columns.map(([name, unit, , right]) =>
      el("th", { scope: "col", role: "columnheader", class: right ? "number" : "" }, name, unit ? el("span", { class: "unit" }, unit) : null)));
    const rows = cases.map((c) => el("tr", { role: "row" }, columns.map(([name, unit, show, right]) =>
      el("td", { role: "cell", class: right ? "number" : "", "data-label": name + (unit ? " (" + unit + ")" : "") },
        right && !c.ran ? NONE : show(c)))));
    return el("section", {}, el("h2", {}, "Cases"), cases.length
      ? el("table", { class: "cards", role: "table" }, el("thead", { role: "rowgroup" }, head), el("tbody", { role: "rowgroup" }, rows))
      : el("p", { class: "empty" }, "No case ran."),
      el("p", { class: "note" }, "Batch: time of one batch write. Row: time from submit to outcome of a tracked sample of rows."));
  }

  function comparison() {
    const shown = cases.filter((c) => c.ran && !missing(c.data.records_per_second));
    if (!shown.length) return null;
    const most = Math.max(...shown.map((c) => c.data.records_per_second), 1);
    const bars = shown.map((c) => {
      const fill = el("span", { class: "fill" + (c.data.rps_valid ? "" : " doubtful") });
      // 72 %, so that the figure beside the longest bar fits on a phone.
      fill.style.width = Math.max(0, (c.data.records_per_second / most) * 72) + "%";
      return el("div", { class: "bar", role: "listitem" }, el("a", { class: "name", href: "#" + c.id }, label(c.data)),
        el("div", { class: "track" }, fill, el("span", { class: "value" }, rate(c.data))));
    });
    const doubts = shown.filter((c) => !c.data.rps_valid).map((c) => label(c.data) + (c.data.rps_note ? " (" + c.data.rps_note + ")" : ""));
    return el("section", {}, el("h2", {}, "Records per second"), el("div", { role: "list" }, bars),
      doubts.length ? el("p", { class: "note" }, "* Not comparable with other cases or runs: " + doubts.join("; ") + ".") : null);
  }

  // --- One case ---------------------------------------------------------------------------------------
  function tiles(data) {
    const tile = (name, value, unit, sub) => el("div", {}, el("dt", {}, name),
      el("dd", {}, value, unit ? el("small", {}, " " + unit) : null, sub ? el("div", { class: "sub" }, sub) : null));
    const perBatch = data.batches > 0 ? measure(data.actual_records / data.batches) + " rows each on average" : null;
    return el("dl", { class: "tiles" },
      tile("Rate", rate(data), "records/s", data.rps_valid ? null : data.rps_note || "not comparable"),
      tile("Records", count(data.total_records), "", count(data.actual_records) + " found in the database"),
      tile("Integrity", percent(data.data_integrity_rate), "%", data.integrity.matches ? "content matches" : "content differs"),
      tile("Duration", seconds(data.duration), "", plural(data.concurrent_workers, "worker")),
      tile("Batches", count(data.batches), "", perBatch),
      tile("Peak memory", measure(data.memory.peak_mb), "MB",
        missing(data.memory.bound_mb) ? null : "bound " + measure(data.memory.bound_mb) + " MB"));
  }

  function latencies(data) {
    const fields = [["p50", "p50_ms"], ["p90", "p90_ms"], ["p99", "p99_ms"], ["p99.9", "p999_ms"], ["max", "max_ms"]];
    const row = (name, latency) => el("tr", {}, el("td", {}, name),
      fields.map(([, field]) => el("td", { class: "number" }, at(latency, field))),
      el("td", { class: "number" }, latency ? count(latency.samples) : NONE));
    return el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Latency, ms"),
      fields.map(([name]) => el("th", { scope: "col", class: "number" }, name)), el("th", { scope: "col", class: "number" }, "samples"))),
      el("tbody", {}, row("Batch write", data.batch_latency), row("Row, submit to outcome", data.row_latency)));
  }

  function details(data) {
    const { integrity: check, memory } = data;
    const block = (name, pairs, kind) => el("div", {}, el("h4", {}, name),
      pairs.length ? facts(pairs, kind) : el("p", { class: "muted" }, "none"));
    const sum = (value) => (value ? el("code", {}, value) : NONE);
    return el("div", { class: "details" },
      el("div", { class: "wide" }, latencies(data)),
      block("Integrity", [
        ["Rows expected", count(check.expected_rows)], ["Rows found", count(check.actual_rows)],
        ["Checksum expected", sum(check.expected_checksum)], ["Checksum found", sum(check.actual_checksum)],
        ["Verdict", check.matches ? "matches" : el("span", { class: "status failed" }, "differs")],
      ], "figures"),
      block("Rows by outcome", balance(data).map(([name, rows]) => [name, count(rows)]), "figures"),
      block("Memory", [
        ["Start", measure(memory.start_mb) + " MB"], ["Peak", measure(memory.peak_mb) + " MB"], ["End", measure(memory.end_mb) + " MB"],
        missing(memory.bound_mb) ? null : ["Bound", measure(memory.bound_mb) + " MB"],
        memory.bound_note ? ["", el("span", { class: "muted" }, memory.bound_note)] : null,
      ], "figures"),
      Object.keys(data.parameters).length ? el("p", { class: "wide muted" }, "Parameters: ",
        Object.entries(data.parameters).map(([name, value], i) => [i ? ", " : "", el("code", {}, name + " = " + value)]).flat()) : null);
  }

  // The content of each plot; a missing value leaves a gap.
  function panels(data) {
    const column = (pick) => data.series.map(pick).map((value) => (Number.isFinite(value) ? value : null));
    const memory = column((s) => s.memory_mb);
    const bound = data.memory.bound_mb;
    const panel = (title, unit, ...lines) => ({ title, unit, lines: lines.filter(Boolean) });
    return [
      panel("Rate", "records/s", { name: "", stroke: "first", fill: true, values: column((s) => s.records_per_second) }),
      panel("Batch latency", "ms",
        { name: "p50", stroke: "first", values: column((s) => s.batch_latency_p50_ms) },
        { name: "p99", stroke: "second", values: column((s) => s.batch_latency_p99_ms) }),
      panel("Memory", "MB", { name: "", stroke: "first", fill: true, values: memory },
        // A bound far above the curve would flatten it; the figures always include the bound.
        Number.isFinite(bound) && bound < 3 * window.batchsqlHighest(memory)
          ? { name: "bound", stroke: "limit", dash: [6, 4], constant: true, values: memory.map(() => bound) } : null),
      panel("Buffer", "rows", { name: "waiting", stroke: "first", fill: true, values: column((s) => s.buffer_records) },
        { name: "limit", stroke: "limit", dash: [6, 4], constant: true, values: column((s) => s.buffer_limit) }),
    ];
  }

  // The four curves of a case: rate, batch latency, memory, buffer.
  function curves(data, id) {
    if (data.series.length < 2) return el("p", { class: "empty" }, "Too short for a curve: fewer than 2 samples.");
    const times = data.series.map((sample) => sample.at_seconds);
    const x = { values: times, range: [0, times[times.length - 1] || 1], label: "time, s", over: "time",
      at: (index) => measure(times[index]) + " s" };
    return window.batchsqlCurves(panels(data), x, id, { el, measure, compact });
  }

  function section(entry) {
    const { data } = entry;
    const errors = data.errors.length
      ? el("ul", { class: "errors " + entry.status, "aria-label": "Errors" }, data.errors.map((error) => el("li", {}, error))) : null;
    return el("section", { class: "case", id: entry.id },
      el("header", {}, el("h3", {}, data.test_name), el("span", { class: "muted" }, data.database), status(entry.status)),
      data.description ? el("p", { class: "description" }, data.description) : null, errors,
      entry.ran ? [tiles(data), details(data), curves(data, entry.id)] : null);
  }

  main.append(top(), setting(), overview());
  const bars = comparison();
  if (bars) main.append(bars);
  if (cases.length) main.append(el("h2", {}, "Case by case"), ...cases.map(section));
  window.batchsqlDraw();
})();

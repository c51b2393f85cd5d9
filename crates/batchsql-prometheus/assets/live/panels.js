// The content of panels: which cells become which lines, in which unit. Knows the history and the figures; not how a
// line is drawn.
(function (live) {
  "use strict";
  const { sum, most, least, rate, quantiles, count, measure, percent, bytes, compact } = live.figures;
  // Seconds over which rates and quantiles are taken: long enough to be readable, short enough to be current.
  const SPAN = 3;
  // Maximum number of lines of a panel; less important ones are merged.
  const LINES = 8;
  // Scrapes without a change after which a test case counts as ended. The check of millions of rows takes a while.
  const SILENT = 120;

  // Cells in groups by name: the present labels, with the database if there are several.
  function grouped(view, cells, labels) {
    const groups = new Map();
    for (const cell of cells) {
      const parts = labels.map((label) => cell.labels.get(label)).filter(Boolean);
      if (view.manyDatabases) parts.unshift(cell.labels.get("database"));
      const name = parts.join(" / ") || cell.labels.get("database") || "rows";
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push(cell);
    }
    return groups;
  }

  const area = (values) => values.reduce((total, value) => (value === value ? total + value : total), 0);
  const lowest = (values) => values.reduce((low, value) => (value < low ? value : low), Infinity);
  const isEmpty = (values) => values.every((value) => value !== value);

  // Selects the most important lines and merges the rest: quantities are summed, of shares the lowest is taken.
  const BY_SIZE = { order: (a, b) => area(b.values) - area(a.values), join: sum };
  const WORST = { order: (a, b) => lowest(a.values) - lowest(b.values), join: least };

  function limited(lines, { order, join } = BY_SIZE, most = LINES) {
    const shown = lines.filter((line) => !isEmpty(line.values));
    if (shown.length <= most) return shown;
    shown.sort(order);
    const rest = shown.splice(most - 1);
    const values = join(rest.map((line) => ({ points: line.values })), 0, rest[0].values.length);
    return [...shown, { name: rest.length + " others", tone: "rest", values }];
  }

  const rates = (view, cells) => rate(sum(cells, view.from, view.to), view.history.spans, view.from, SPAN);
  const lines = (groups, values) => limited([...groups].map(([name, cells]) => ({ name, values: values(cells) })));

  // Cells of the databases that `others` are of.
  function of(view, id, others) {
    const databases = new Set(others.map((cell) => cell.labels.get("database")));
    return view.cells(id).filter((cell) => databases.has(cell.labels.get("database")));
  }

  // Share of a limit in percent; nothing if the limit is unknown.
  function share(view, used, limit) {
    const [have, may] = [used, limit].map((id) => sum(view.cells(id), view.from, view.to));
    return have.map((value, i) => (may[i] > 0 ? (100 * value) / may[i] : NaN));
  }

  const OUTCOMES = [["written", "s0"], ["ignored", "s7"], ["superseded", "s4"], ["rejected", "failed"], ["expired", "s1"], ["purged", "s3"], ["unknown", "s5"]];

  const PANELS = [
    {
      id: "records-per-second", title: "Records Per Second", unit: "rows/s", group: "flow",
      about: "Rows per second as each test case reports them while it runs; without tests, rows written per database.",
      empty: "No test case is running. Their results are in the table below.",
      lines(view) {
        const cases = view.cells("rps");
        if (cases.length > 0) return lines(grouped(view, cases, ["test_case"]), (cells) => sum(cells, view.from, view.to));
        return lines(grouped(view, view.cells("processed"), ["database"]), (cells) => rates(view, cells));
      },
    },
    {
      id: "records-processing-rate", title: "Records Processing Rate", unit: "rows/s", group: "flow",
      about: "Rows committed per second and table, over the last 3 seconds.",
      empty: "No row has been written while this page was open.",
      // Without tables that were announced and have had no writes.
      lines: (view) => lines(grouped(view, view.cells("processed").filter((cell) => cell.now > 0), ["table"]), (cells) => rates(view, cells)),
    },
    {
      id: "batch-execution-duration", title: "Batch Execution Duration", unit: "ms", group: "flow",
      about: "From statement to confirmed commit, of the batches of the last 3 seconds: half, nine tenths and 99 % took no longer. Read from the buckets of the histogram, as Prometheus does.",
      empty: "No batch has been written while this page was open.",
      lines(view) {
        const buckets = view.cells("durations");
        const found = quantiles([0.5, 0.9, 0.99], buckets, view.history.spans, view.from, view.to, SPAN);
        return ["p50", "p90", "p99"].map((name, i) => ({ name, tone: ["s0", "s2", "s1"][i], values: found[i].map((value) => value * 1e3) }))
          .filter((line) => !isEmpty(line.values));
      },
    },
    {
      id: "batch-execution-rate", title: "Batch Execution Rate", unit: "batches/s", group: "flow",
      about: "Attempts to write a batch per second, by how they ended.",
      empty: "No batch has been written while this page was open.",
      lines(view) {
        const of = (status) => view.cells("executions").filter((cell) => cell.labels.get("status") === status);
        return [["success", "s0"], ["failure", "failed"]]
          .map(([name, tone]) => ({ name, tone, fill: name === "success", values: rates(view, of(name)) }))
          .filter((line) => !isEmpty(line.values));
      },
    },
    {
      id: "buffer-fill", title: "Buffer Fill", unit: "% of limit", group: "state", top: 100, figure: (value) => measure(value) + " %",
      about: "Rows and bytes in the buffer, in percent of their limits. At 100 % submits wait.",
      empty: "No pipeline has reported its buffer.",
      lines: (view) => [
        { name: "rows", tone: "s0", fill: true, values: share(view, "bufferRecords", "bufferRecordsLimit") },
        { name: "bytes", tone: "s1", values: share(view, "bufferBytes", "bufferBytesLimit") },
      ].filter((line) => !isEmpty(line.values)),
    },
    {
      id: "outcomes", title: "Outcomes", unit: "rows/s", group: "state",
      about: "Outcomes of rows per second, for all test cases together. Outcomes that did not occur are not shown.",
      empty: "No row has had an outcome while this page was open.",
      lines(view) {
        const cells = view.cells("outcomes");
        return OUTCOMES.map(([name, tone]) => {
          const own = cells.filter((cell) => cell.labels.get("outcome") === name);
          return { name, tone, fill: name === "written", seen: own.some((cell) => cell.now > 0), values: rates(view, own) };
        }).filter((line) => (line.seen || line.name === "written") && !isEmpty(line.values));
      },
    },
    {
      id: "memory-usage", title: "Memory Usage", unit: "MiB", group: "state",
      about: "Memory of the process: resident, and during tests the allocated memory and the memory that the allocator holds.",
      empty: "This process does not report its memory.",
      lines(view) {
        const of = (type) => most(view.cells("memory").filter((cell) => cell.labels.get("type") === type), view.from, view.to);
        const resident = sum(view.history.cells("resident"), view.from, view.to).map((value) => value / 2 ** 20);
        // The process always reports it; tests only while they run.
        const first = isEmpty(resident) ? { name: "current", values: of("current") } : { name: "resident", values: resident };
        return [{ ...first, tone: "s0", fill: true }, { name: "alloc", tone: "s2", values: of("alloc") }, { name: "sys", tone: "s3", values: of("sys") }]
          .filter((line) => !isEmpty(line.values));
      },
    },
    {
      id: "rows-in-log", title: "Rows in the Log", unit: "rows", group: "log", figure: count,
      about: "Rows that are stored and have not ended, and of these the rows that were read from the log. While the database is unreachable the first grows.",
      empty: "No durable intake has reported its rows.",
      lines: (view) => [
        { name: "in the log", tone: "s0", fill: true, values: sum(view.cells("unsettled"), view.from, view.to) },
        { name: "read", tone: "s2", values: sum(view.cells("readAhead"), view.from, view.to) },
      ].filter((line) => !isEmpty(line.values)),
    },
    {
      id: "log-fill", title: "Log Fill", unit: "% of disk_bytes", group: "log", top: 100, figure: (value) => measure(value) + " %",
      about: "Bytes of the log in percent of its limit. When it is full no row is accepted.",
      empty: "No durable intake has reported its log.",
      lines: (view) => [{ name: "bytes", tone: "s1", fill: true, values: share(view, "logBytes", "logBytesLimit") }].filter((line) => !isEmpty(line.values)),
    },
    {
      id: "rows-stored", title: "Rows Stored and Written", unit: "rows/s", group: "log",
      about: "Rows that were stored in the log and acknowledged, and rows that were committed in the database, over the last 3 seconds.",
      empty: "No row has been stored while this page was open.",
      lines: (view) => [
        { name: "stored", tone: "s0", values: rates(view, view.cells("stored")) },
        { name: "written", tone: "s2", values: rates(view, of(view, "processed", view.cells("stored"))) },
      ].filter((line) => !isEmpty(line.values)),
    },
    {
      id: "sync-duration", title: "Sync Duration", unit: "ms", group: "log",
      about: "Time of one sync of the log to disk, of the syncs of the last 3 seconds: half and 99 % took no longer. A submit waits for at least one.",
      empty: "The log has not been synced while this page was open.",
      lines(view) {
        const found = quantiles([0.5, 0.99], view.cells("syncs"), view.history.spans, view.from, view.to, SPAN);
        return ["p50", "p99"].map((name, i) => ({ name, tone: ["s0", "s1"][i], values: found[i].map((value) => value * 1e3) }))
          .filter((line) => !isEmpty(line.values));
      },
    },
    {
      id: "messages-behind", title: "Messages Behind", unit: "messages", group: "feeds", figure: count,
      about: "Messages between the position and the end of the stream, and of these the messages that were not delivered yet.",
      empty: "No feed has reported its messages.",
      lines: (view) => [
        { name: "not written", tone: "s0", fill: true, values: sum(view.cells("behind"), view.from, view.to) },
        { name: "not delivered", tone: "s2", values: sum(view.cells("undelivered"), view.from, view.to) },
      ].filter((line) => !isEmpty(line.values)),
    },
    {
      id: "rows-fed", title: "Rows Read and Settled", unit: "rows/s", group: "feeds",
      about: "Rows that were read from the stream, and rows that were written and settled, over the last 3 seconds.",
      empty: "No row has been read while this page was open.",
      lines: (view) => [
        { name: "read", tone: "s0", values: rates(view, view.cells("readRows")) },
        { name: "settled", tone: "s2", values: rates(view, view.cells("settledRows")) },
      ].filter((line) => !isEmpty(line.values)),
    },
    {
      id: "partitions", title: "Partitions", unit: "partitions", group: "feeds", whole: true, figure: count,
      about: "Partitions that this process is to feed, those that it holds, those that cannot be written now, and those that no process has.",
      empty: "No feed has reported its partitions.",
      lines: (view) => [["wanted", "wanted", "s7"], ["held", "heldPartitions", "s0"], ["waiting", "waitingPartitions", "s1"], ["nobody has", "unheld", "failed"]]
        .map(([name, id, tone]) => ({ name, tone, values: sum(view.cells(id), view.from, view.to) }))
        .filter((line) => !isEmpty(line.values)),
    },
    {
      id: "rows-again", title: "Written Again and Dead Letters", unit: "rows/s", group: "feeds",
      about: "Rows that were written again because their outcome was not known, and rejected rows in the dead letters, over the last 3 seconds.",
      empty: "No feed has reported its rows.",
      lines: (view) => [
        { name: "written again", tone: "s1", values: rates(view, view.cells("writtenAgain")) },
        { name: "dead letters", tone: "failed", values: rates(view, view.cells("feedLetters")) },
      ].filter((line) => !isEmpty(line.values)),
    },
    {
      id: "data-integrity-rate", title: "Data Integrity Rate", unit: "%", group: "tests", range: [90, 100], figure: (value) => percent(value) + " %",
      about: "Share of the expected rows that were found in the database, of all ended cases: the lowest, and each below 100 %.",
      empty: "No test case has ended yet.",
      lines(view) {
        const cells = view.cells("integrity");
        const torn = [...grouped(view, cells, ["test_case"])].filter(([, own]) => own.some((cell) => cell.now < 100))
          .map(([name, own]) => ({ name, values: least(own, view.from, view.to) }));
        return [{ name: "lowest", tone: "s0", fill: true, wide: true, values: least(cells, view.from, view.to) },
          ...limited(torn, WORST, LINES - 1)].filter((line) => !isEmpty(line.values));
      },
    },
    {
      id: "test-success-status", title: "Test Success Status", unit: "cases", group: "tests", whole: true, figure: count,
      about: "Test cases that have passed and failed so far. The dashed lines in every curve are their ends.",
      empty: "No test case has ended yet.",
      lines(view) {
        const cells = view.cells("success");
        const tally = (is) => sum(cells.map((cell) => ({ points: cell.points.map((value) => (value === value ? Number(is(value)) : NaN)) })), view.from, view.to);
        return [{ name: "passed", tone: "passed", fill: true, values: tally((value) => value === 1) },
          { name: "failed", tone: "failed", values: tally((value) => value !== 1) }].filter((line) => !isEmpty(line.values));
      },
    },
  ];

  // --- Current figures ---------------------------------------------------------------------------------------
  const total = (cells, tick) => cells.reduce((all, cell) => (cell.tick === tick ? (all === all ? all : 0) + cell.now : all), NaN);
  const lastOf = (values) => (values.length ? values[values.length - 1] : NaN);

  // The tiles: [id, name, figure, unit, note, tone, share of 100 for a bar].
  function tiles(view, serverNow) {
    const { history } = view;
    const recent = { ...view, from: Math.max(0, view.to - 8) };
    const now = (id) => total(view.cells(id), history.tick);
    const attempts = (status) => total(view.cells("executions").filter((cell) => cell.labels.get("status") === status), history.tick);
    const became = (outcome) => total(view.cells("outcomes").filter((cell) => cell.labels.get("outcome") === outcome), history.tick);
    const perSecond = lastOf(rates(recent, view.cells("processed")));
    const [p50, p99] = quantiles([0.5, 0.99], view.cells("durations"), history.spans, recent.from, recent.to, SPAN).map(lastOf);
    const [records, recordsLimit, held, heldLimit] = ["bufferRecords", "bufferRecordsLimit", "bufferBytes", "bufferBytesLimit"].map(now);
    const part = (have, may) => (may > 0 ? (100 * have) / may : NaN);
    const [byRows, byBytes] = [part(records, recordsLimit), part(held, heldLimit)];
    const fill = [byRows, byBytes].reduce((high, value) => (value > high ? value : high), -1);
    const oldest = view.cells("oldest").filter((cell) => cell.tick === history.tick && cell.now > 0).map((cell) => serverNow / 1000 - cell.now);
    const age = oldest.length ? live.figures.time(Math.max(0, ...oldest)) : records >= 0 ? ["none", ""] : [live.figures.NONE, ""];
    const [p99Figure, p99Unit] = live.figures.time(p99);
    const size = (value) => bytes(value).join(" ").trim();
    const parked = now("parked");
    const [rejected, failed, unknown] = [became("rejected"), attempts("failure"), became("unknown")];
    return [
      { id: "rows-per-second", name: "Rows per second", figure: count(perSecond), value: perSecond, note: count(now("processed")) + " written", lead: true },
      { id: "p99", name: "Batch p99", figure: p99Figure, unit: p99Unit, value: p99, note: "p50 " + live.figures.time(p50).join(" ").trim(), lead: true },
      { id: "buffer", name: "Buffer", figure: fill < 0 ? live.figures.NONE : measure(fill), unit: fill < 0 ? "" : "%", value: fill, share: Math.max(0, fill), note: "rows " + measure(byRows) + " %, bytes " + measure(byBytes) + " %", tone: fill >= 90 ? "warn" : "", lead: true },
      { id: "waiting", name: "Rows waiting", figure: count(records), value: records, note: "of " + count(recordsLimit) + "; " + size(held) + " of " + size(heldLimit) },
      { id: "inflight", name: "In flight", figure: count(now("inflight")), value: now("inflight"), note: "of " + count(now("concurrency")) + " batches at once" },
      { id: "oldest", name: "Oldest waiting row", figure: age[0], unit: age[1], value: oldest.length ? Math.max(...oldest) : 0, note: parked > 0 ? count(parked) + (parked === 1 ? " table is parked" : " tables are parked") : oldest.length ? "since it was submitted" : "nothing waits", tone: parked > 0 ? "warn" : "" },
      { id: "rejected", name: "Rows rejected", figure: count(rejected), value: rejected, note: count(unknown) + " unknown", tone: rejected > 0 || unknown > 0 ? "bad" : "" },
      { id: "failed", name: "Failed attempts", figure: count(failed), value: failed, note: count(now("retries")) + " retries", tone: failed > 0 ? "bad" : "" },
    ];
  }

  // The tiles of a durable intake; none without one.
  function logTiles(view, serverNow) {
    const { history } = view;
    const now = (id) => total(view.cells(id), history.tick);
    const [held, limit, rows] = ["logBytes", "logBytesLimit", "unsettled"].map(now);
    if (!(held >= 0)) return [];
    const { time, NONE } = live.figures;
    const recent = { ...view, from: Math.max(0, view.to - 8) };
    const [p50, p99] = quantiles([0.5, 0.99], view.cells("syncs"), history.spans, recent.from, recent.to, SPAN).map(lastOf);
    const fill = limit > 0 ? (100 * held) / limit : NaN;
    const isFull = now("logFull") > 0;
    const ages = view.cells("oldestStored").filter((cell) => cell.tick === history.tick && cell.now > 0).map((cell) => Math.max(0, serverNow / 1000 - cell.now));
    const age = ages.length ? Math.max(...ages) : 0;
    const stopped = view.cells("stopped").filter((cell) => cell.tick === history.tick && cell.now > 0);
    const tables = stopped.map((cell) => cell.labels.get("table")).sort();
    const [damaged, missing, failures] = ["damaged", "missing", "diskFailures"].map(now);
    const size = (value) => bytes(value).join(" ").trim();
    const [ageFigure, ageUnit] = ages.length ? time(age) : ["none", ""];
    const [p99Figure, p99Unit] = time(p99);
    // Before the first row no table is known, and so no series of rows.
    return [
      { id: "in-log", name: "Rows in the log", figure: count(rows >= 0 ? rows : 0), value: rows >= 0 ? rows : 0, note: count(now("readAhead") || 0) + " read from it" },
      { id: "log-fill", name: "Log", figure: measure(fill), unit: "%", value: fill, share: fill >= 0 ? fill : 0, note: isFull ? "accepts no rows" : size(held) + " of " + size(limit), tone: isFull ? "bad" : fill >= 80 ? "warn" : "" },
      { id: "oldest-in-log", name: "Oldest row in the log", figure: ageFigure, unit: ageUnit, value: age, note: ages.length ? "since it was stored" : "every row has ended", tone: age > 600 ? "warn" : "" },
      { id: "sync", name: "Sync p99", figure: p99Figure, unit: p99Unit, value: p99, note: p99 >= 0 ? "p50 " + time(p50).join(" ").trim() : "no sync within " + SPAN + " s" },
      { id: "stopped", name: "Stopped partitions", figure: count(total(stopped, history.tick) || 0), value: total(stopped, history.tick) || 0, note: tables.length > 2 ? tables.slice(0, 2).join(", ") + ", " + (tables.length - 2) + " more" : tables.join(", ") || NONE, tone: stopped.length ? "bad" : "" },
      { id: "damage", name: "Damaged parts", figure: count(damaged), value: damaged, note: count(missing) + " rows given up, " + count(failures) + (failures === 1 ? " disk failure" : " disk failures"), tone: damaged > 0 || missing > 0 || failures > 0 ? "bad" : "" },
    ];
  }

  // The tiles of the feeds of a stream; none without them.
  function feedTiles(view, serverNow) {
    const { history } = view;
    const present = (id) => view.cells(id).filter((cell) => cell.tick === history.tick);
    const now = (id) => total(view.cells(id), history.tick) || 0;
    const sources = present("sourceUp");
    if (sources.length === 0 && present("wanted").length === 0) return [];
    const unreachable = sources.filter((cell) => !(cell.now > 0)).map((cell) => cell.labels.get("database")).sort();
    const ages = present("oldestMessage").filter((cell) => cell.now > 0).map((cell) => Math.max(0, serverNow / 1000 - cell.now));
    const age = ages.length ? Math.max(...ages) : 0;
    const [ageFigure, ageUnit] = ages.length ? live.figures.time(age) : ["none", ""];
    const [wanted, held, unheld] = ["wanted", "heldPartitions", "unheld"].map(now);
    const stopped = present("stoppedFeeds").filter((cell) => cell.now > 0);
    const reasons = stopped.map((cell) => cell.labels.get("table") + " " + cell.labels.get("reason").replace("_", " ")).sort();
    const [letters, foreign, givenUp] = ["feedLetters", "foreign", "givenUp"].map(now);
    const some = (names) => (names.length > 2 ? names.slice(0, 2).join(", ") + ", " + (names.length - 2) + " more" : names.join(", "));
    return [
      { id: "behind", name: "Messages behind", figure: count(now("behind")), value: now("behind"), note: count(now("undelivered")) + " not delivered" },
      { id: "oldest-message", name: "Oldest message", figure: ageFigure, unit: ageUnit, value: age, note: ages.length ? "since it was published" : "none is known", tone: age > 600 ? "warn" : "" },
      { id: "partitions-held", name: "Partitions held", figure: count(held), value: held, note: "of " + count(wanted) + (unheld > 0 ? "; " + count(unheld) + " nobody has" : ""), tone: unheld > 0 ? "bad" : held < wanted ? "warn" : "" },
      { id: "stopped-feeds", name: "Stopped partitions", figure: count(total(stopped, history.tick) || 0), value: total(stopped, history.tick) || 0, note: some(reasons) || count(now("waitingPartitions")) + " waiting", tone: stopped.length ? "bad" : now("waitingPartitions") > 0 ? "warn" : "" },
      { id: "source", name: "Stream", figure: sources.length === 0 ? live.figures.NONE : unreachable.length ? "down" : "answers", value: sources.length - unreachable.length, note: unreachable.length ? some(unreachable) : count(now("takeovers")) + " takeovers, " + count(now("fences")) + " fences", tone: unreachable.length ? "bad" : "" },
      { id: "set-aside", name: "Dead letters", figure: count(letters), value: letters, note: count(foreign) + " foreign messages, " + count(givenUp) + " given up", tone: letters > 0 || foreign > 0 || givenUp > 0 ? "bad" : "" },
    ];
  }

  // The rows of the table of test cases, the newest first; waiting ones last.
  function cases(view) {
    const { history } = view;
    const rows = new Map();
    const put = (id, field) => {
      for (const cell of view.cells(id)) {
        if (cell.tick !== history.tick) continue;
        const [database, name] = [cell.labels.get("database"), cell.labels.get("test_case")];
        const key = JSON.stringify([database, name]);
        if (!rows.has(key)) rows.set(key, { key, database, name });
        rows.get(key)[field(cell)] = cell;
      }
    };
    for (const id of ["rps", "success", "integrity", "duration", "completion"]) put(id, () => id);
    put("testRecords", (cell) => "records_" + cell.labels.get("type"));
    // The last change of a test. Its counters may exist before it begins, its gauges do not.
    const [moved, begun] = [new Map(), new Set()];
    for (const id of ["processed", "executions", "rps", "memory"]) {
      for (const cell of view.cells(id)) {
        const [database, name] = [cell.labels.get("database"), cell.labels.get("test_case")];
        if (!name || cell.tick !== history.tick) continue;
        const key = JSON.stringify([database, name]);
        if (!rows.has(key)) rows.set(key, { key, database, name });
        moved.set(key, Math.max(moved.get(key) || 1, cell.changed));
        if (!cell.spec.counter || cell.now > 0) begun.add(key);
      }
    }
    const value = (cell) => (cell ? cell.now : NaN);
    return [...rows.values()].map((row) => {
      const ended = row.completion !== undefined;
      const isWaiting = !ended && row.success === undefined && !begun.has(row.key);
      const isRunning = ended ? row.rps !== undefined && row.rps.changed > row.completion.changed && history.tick - row.rps.changed <= 5
        : history.tick - moved.get(row.key) <= SILENT;
      return {
        key: row.key, database: row.database, name: row.name,
        result: isWaiting ? "waiting" : isRunning ? "running" : row.success === undefined ? "no result" : row.success.now === 1 ? "passed" : "failed",
        rate: value(row.rps), integrity: ended ? value(row.integrity) : NaN, duration: ended ? value(row.duration) : NaN,
        submitted: value(row.records_submitted), actual: value(row.records_actual), at: ended ? row.completion.now : isWaiting ? -Infinity : Infinity,
      };
    }).sort((a, b) => (b.at === a.at ? (a.key < b.key ? -1 : 1) : b.at - a.at));
  }

  // The rows of the table of tables, the busiest first.
  function tables(view) {
    const rows = new Map();
    for (const cell of view.cells("tables")) {
      if (cell.tick !== view.history.tick) continue;
      const [database, name, outcome] = ["database", "table", "outcome"].map((label) => cell.labels.get(label));
      const key = JSON.stringify([database, name]);
      if (!rows.has(key)) rows.set(key, { key, database, name, written: 0, rejected: 0, other: 0, rate: NaN });
      const row = rows.get(key);
      row[outcome === "written" || outcome === "rejected" ? outcome : "other"] += cell.now;
    }
    const recent = { ...view, from: Math.max(0, view.to - 8) };
    const flows = new Map();
    for (const cell of view.cells("processed")) {
      const key = JSON.stringify([cell.labels.get("database"), cell.labels.get("table")]);
      if (!flows.has(key)) flows.set(key, []);
      flows.get(key).push(cell);
    }
    for (const [key, cells] of flows) if (rows.has(key)) rows.get(key).rate = lastOf(rates(recent, cells));
    // An announced table without rows is not shown.
    return [...rows.values()].filter((row) => row.written + row.rejected + row.other > 0).sort((a, b) => (b.rate || 0) - (a.rate || 0) || b.written - a.written || (a.key < b.key ? -1 : 1));
  }

  live.panels = { PANELS, SPAN, tiles, logTiles, feedTiles, cases, tables, compact };
})(window.batchsqlLive = window.batchsqlLive || {});

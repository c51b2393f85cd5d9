// The scrapes of the last 15 minutes, in cells of equal length: a point per scrape, NaN where a series was missing.
// Knows which metrics the page needs and by which labels it sums them; not how they are shown.
(function (live) {
  "use strict";
  // Kept points: 15 minutes with one per second.
  const CAPACITY = 900;
  // Scrapes after which a missing series is removed.
  const FORGET = 120;
  // Scrapes after the end of a test case in which its gauges are still used.
  const LINGER = 2;
  // Scrapes after which an unchanged rate counts as outdated, as while a test checks its rows.
  const STALE = 10;

  // One kind of cell per line. `by` are its labels; beyond `limit` cells names of tables and test cases become "other",
  // and beyond twice as many those of databases: the labels in FEW have few values, whatever an application does.
  // A counter's point is its increase since the last scrape, a gauge's its value. `lean` cells keep no points, those of
  // `exact` ones are not rounded; of several series in one cell a `lowest` one has the lowest, others the sum.
  const FEW = ["status", "outcome", "type", "le"];
  const KEEP = ["database", ...FEW];
  const CASE = ["database", "test_case"];
  const SPECS = [
    { id: "processed", name: "batchsql_records_processed_total", counter: true, by: ["database", "table", "test_case"], limit: 2500 },
    { id: "executions", name: "batchsql_batch_execution_total", counter: true, by: ["database", "status", "test_case"] },
    { id: "durations", name: "batchsql_batch_execution_duration_seconds_bucket", counter: true, by: ["database", "test_case", "le"], limit: 3000 },
    { id: "outcomes", name: "batchsql_records_outcome_total", counter: true, by: ["database", "outcome"] },
    { id: "tables", name: "batchsql_records_outcome_total", counter: true, lean: true, by: ["database", "table", "outcome"], limit: 7000 },
    { id: "retries", name: "batchsql_retries_total", counter: true, lean: true, by: ["database"] },
    { id: "refused", name: "batchsql_submit_refused_total", counter: true, lean: true, by: ["database"] },
    { id: "bufferRecords", name: "batchsql_buffer_records", by: ["database"] },
    { id: "bufferRecordsLimit", name: "batchsql_buffer_records_limit", by: ["database"] },
    { id: "bufferBytes", name: "batchsql_buffer_bytes", by: ["database"] },
    { id: "bufferBytesLimit", name: "batchsql_buffer_bytes_limit", by: ["database"] },
    { id: "inflight", name: "batchsql_inflight_batches", lean: true, by: ["database"] },
    { id: "concurrency", name: "batchsql_concurrency_limit", lean: true, by: ["database"] },
    { id: "parked", name: "batchsql_parked_tables", lean: true, by: ["database"] },
    { id: "oldest", name: "batchsql_oldest_buffered_record_timestamp_seconds", lean: true, by: ["database"] },
    { id: "logBytes", name: "batchsql_durable_log_bytes", by: ["database"] },
    { id: "logBytesLimit", name: "batchsql_durable_log_bytes_limit", by: ["database"] },
    { id: "logFull", name: "batchsql_durable_log_full", lean: true, by: ["database"] },
    { id: "unsettled", name: "batchsql_durable_unsettled_records", by: ["database"] },
    { id: "readAhead", name: "batchsql_durable_read_records", by: ["database"] },
    { id: "oldestStored", name: "batchsql_durable_oldest_unsettled_record_timestamp_seconds", lean: true, by: ["database"] },
    { id: "stopped", name: "batchsql_durable_stopped_partitions", lean: true, by: ["database", "table"] },
    { id: "stored", name: "batchsql_durable_acknowledged_records_total", counter: true, by: ["database"] },
    { id: "syncs", name: "batchsql_durable_sync_seconds_bucket", counter: true, by: ["database", "le"] },
    { id: "diskFailures", name: "batchsql_durable_disk_failures_total", counter: true, lean: true, by: ["database"] },
    { id: "damaged", name: "batchsql_durable_quarantined_parts_total", counter: true, lean: true, by: ["database"] },
    { id: "missing", name: "batchsql_durable_missing_records_total", counter: true, lean: true, by: ["database"] },
    { id: "sourceUp", name: "batchsql_feed_source_up", lean: true, lowest: true, by: ["database"] },
    { id: "behind", name: "batchsql_feed_unsettled_messages", by: ["database"] },
    { id: "undelivered", name: "batchsql_feed_pending_messages", by: ["database"] },
    { id: "oldestMessage", name: "batchsql_feed_oldest_unsettled_message_timestamp_seconds", lean: true, by: ["database", "table"] },
    { id: "wanted", name: "batchsql_feed_wanted_partitions", by: ["database"] },
    { id: "heldPartitions", name: "batchsql_feed_held_partitions", by: ["database"] },
    { id: "unheld", name: "batchsql_feed_unheld_partitions", by: ["database"] },
    { id: "waitingPartitions", name: "batchsql_feed_waiting_partitions", by: ["database"] },
    { id: "stoppedFeeds", name: "batchsql_feed_stopped_partitions", lean: true, by: ["database", "table", "reason"] },
    { id: "readRows", name: "batchsql_feed_read_records_total", counter: true, by: ["database"] },
    { id: "settledRows", name: "batchsql_feed_written_records_total", counter: true, by: ["database"] },
    { id: "writtenAgain", name: "batchsql_feed_written_again_records_total", counter: true, by: ["database"] },
    { id: "feedLetters", name: "batchsql_feed_dead_letters_total", counter: true, by: ["database"] },
    { id: "foreign", name: "batchsql_feed_foreign_messages_total", counter: true, lean: true, by: ["database"] },
    { id: "givenUp", name: "batchsql_feed_missing_records_total", counter: true, lean: true, by: ["database"] },
    { id: "takeovers", name: "batchsql_feed_takeovers_total", counter: true, lean: true, by: ["database"] },
    { id: "fences", name: "batchsql_feed_fences_total", counter: true, lean: true, by: ["database"] },
    { id: "rps", name: "batchsql_test_rps", running: true, by: CASE },
    { id: "memory", name: "batchsql_memory_usage_mb", running: true, by: ["database", "test_case", "type"] },
    { id: "success", name: "batchsql_test_success", lowest: true, by: CASE },
    { id: "integrity", name: "batchsql_test_data_integrity_rate", exact: true, lowest: true, by: CASE },
    { id: "duration", name: "batchsql_test_duration_seconds", lean: true, by: CASE },
    { id: "completion", name: "batchsql_test_last_completion_timestamp_seconds", lean: true, by: CASE },
    { id: "testRecords", name: "batchsql_test_records_total", lean: true, by: ["database", "test_case", "type"] },
    { id: "build", name: "batchsql_build_info", lean: true, by: ["version"] },
    { id: "resident", name: "process_resident_memory_bytes", by: [] },
    { id: "started", name: "process_start_time_seconds", lean: true, by: [] },
  ];

  // A copy, because a slice of a scrape would keep all of it in memory.
  const own = (text) => (" " + text).slice(1);

  class History {
    constructor(capacity = CAPACITY) {
      this.capacity = capacity;
      this.times = new Float64Array(2 * capacity);
      // Seconds since the previous scrape; NaN if there is none.
      this.spans = new Float64Array(2 * capacity);
      // The index of the next point, and the number of scrapes.
      this.end = 0;
      this.tick = 0;
      this.last = NaN;
      this.broken = 0;
      this.kinds = new Map(SPECS.map((spec) => [spec.id, { spec, cells: new Map() }]));
      this.wanted = new Map();
      for (const kind of this.kinds.values()) {
        const family = this.wanted.get(kind.spec.name) || { kinds: [], entries: new Map() };
        family.kinds.push(kind);
        this.wanted.set(kind.spec.name, family);
      }
    }

    // Cells of a kind, filtered by database and test case if these are given and the kind has them.
    cells(id, filter = {}) {
      const fits = (cell) => ["database", "test_case"].every((label) =>
        !filter[label] || !cell.labels.has(label) || cell.labels.get(label) === filter[label]);
      return [...this.kinds.get(id).cells.values()].filter(fits);
    }

    // The points since `since`, as a range of indices.
    range(since) {
      let from = Math.max(0, this.end - this.capacity);
      while (from < this.end && this.times[from] < since) from += 1;
      return [from, this.end];
    }

    // Takes one scrape, at a time in milliseconds. Returns whether the process has restarted.
    take(text, now) {
      const begun = live.parse.number((/^process_start_time_seconds (\S+)/m.exec(text) || [])[1] || "");
      const known = [...this.kinds.get("started").cells.values()][0];
      const restarted = Boolean(known) && Math.abs(begun - known.now) > 1.5;
      const isFirst = this.tick === 0;
      this.tick += 1;
      this.broken = live.parse.scan(text, this.wanted, (family, raw, value) => {
        let entry = family.entries.get(raw);
        if (entry === undefined) {
          entry = this.enter(family, own(raw));
          if (entry === null) return;
        }
        // A new series has started at 0; for the first scrape the start is unknown.
        const before = entry.tick === 0 ? (isFirst ? NaN : 0) : entry.value;
        const increase = restarted || value < before ? value : value - before;
        entry.tick = this.tick;
        entry.value = value;
        for (const cell of entry.cells) this.add(cell, value, increase);
      });
      this.write(now, isFirst ? NaN : (now - this.last) / 1000);
      this.last = now;
      if (this.tick % FORGET === 0) this.forget();
      return restarted;
    }

    // Breaks every curve after a lost connection.
    gap(now) {
      if (this.tick === 0) return;
      this.tick += 1;
      this.write(now, NaN);
    }

    enter(family, raw) {
      const labels = live.parse.labels(raw);
      if (labels === null) return null;
      const entry = { tick: 0, value: NaN, cells: family.kinds.map((kind) => this.cell(kind, labels)) };
      family.entries.set(raw, entry);
      return entry;
    }

    cell({ spec, cells }, labels) {
      const limit = spec.limit || 600;
      let own, key;
      for (const [size, kept] of [[0, spec.by], [limit, KEEP], [2 * limit, FEW]]) {
        if (cells.has(key) || cells.size < size) break;
        own = new Map(spec.by.map((label) => [label, kept.includes(label) ? labels.get(label) || "" : "other"]));
        key = JSON.stringify([...own.values()]);
      }
      if (!cells.has(key)) {
        const points = spec.lean ? null : new (spec.exact ? Float64Array : Float32Array)(2 * this.capacity).fill(NaN);
        // Times of change are scrapes; before the first one nothing has changed.
        cells.set(key, { spec, labels: own, key, points, tick: 0, now: NaN, sum: 0, increase: NaN, changed: this.tick > 1 ? this.tick : -Infinity });
      }
      return cells.get(key);
    }

    add(cell, value, increase) {
      if (cell.tick !== this.tick) {
        cell.tick = this.tick;
        cell.sum = cell.spec.lowest ? Infinity : 0;
        cell.increase = NaN;
      }
      cell.sum = cell.spec.lowest ? Math.min(cell.sum, value) : cell.sum + value;
      // The unknown increases of the first scrape do not make the sum unknown.
      if (!Number.isNaN(increase)) cell.increase = Number.isNaN(cell.increase) ? increase : cell.increase + increase;
    }

    write(now, span) {
      if (this.end === 2 * this.capacity) this.compact();
      this.times[this.end] = now;
      this.spans[this.end] = span;
      for (const { spec, cells } of this.kinds.values()) {
        for (const cell of cells.values()) {
          const isHere = cell.tick === this.tick;
          if (isHere && cell.sum !== cell.now) {
            if (!Number.isNaN(cell.now)) cell.changed = this.tick;
            cell.now = cell.sum;
          }
          if (!isHere) cell.increase = NaN;
          if (cell.points) cell.points[this.end] = !isHere ? NaN : spec.counter ? cell.increase : cell.now;
        }
      }
      this.hush();
      this.end += 1;
    }

    // The gauges of a test case keep their last values after its end. That is a result, not a curve.
    hush() {
      const ends = this.kinds.get("completion").cells;
      for (const id of ["rps", "memory"]) {
        for (const cell of this.kinds.get(id).cells.values()) {
          const end = ends.get(JSON.stringify([cell.labels.get("database"), cell.labels.get("test_case")]));
          const hasEnded = end && this.tick - Math.max(end.changed, cell.changed) > LINGER;
          if (hasEnded || (id === "rps" && this.tick - cell.changed > STALE)) cell.points[this.end] = NaN;
        }
      }
    }

    compact() {
      const half = this.capacity;
      const keep = (points) => points.copyWithin(0, half, 2 * half).fill(NaN, half);
      keep(this.times);
      keep(this.spans);
      for (const { cells } of this.kinds.values()) {
        for (const cell of cells.values()) if (cell.points) keep(cell.points);
      }
      this.end = half;
    }

    forget() {
      for (const family of this.wanted.values()) {
        for (const [raw, entry] of family.entries) if (this.tick - entry.tick > FORGET) family.entries.delete(raw);
      }
      for (const { cells } of this.kinds.values()) {
        for (const [key, cell] of cells) if (this.tick - cell.tick > this.capacity) cells.delete(key);
      }
    }
  }

  live.History = History;
})(window.batchsqlLive = window.batchsqlLive || {});

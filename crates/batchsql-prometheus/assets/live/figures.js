// From points to figures: sums, rates, quantiles, and the format of numbers. Pure: no page, no clock, no metric.
(function (live) {
  "use strict";

  // The sum of cells point by point; NaN if none of them has a value.
  function sum(cells, from, to) {
    const total = new Float64Array(to - from).fill(NaN);
    for (const { points } of cells) {
      for (let i = from; i < to; i++) {
        const value = points[i];
        if (value === value) total[i - from] = total[i - from] === total[i - from] ? total[i - from] + value : value;
      }
    }
    return total;
  }

  // The largest of the cells, point by point.
  function most(cells, from, to) {
    const found = new Float64Array(to - from).fill(NaN);
    for (const { points } of cells) {
      for (let i = from; i < to; i++) if (!(points[i] <= found[i - from]) && points[i] === points[i]) found[i - from] = points[i];
    }
    return found;
  }

  // The smallest of the cells, point by point.
  function least(cells, from, to) {
    return most(cells.map(({ points }) => ({ points: points.map((value) => -value) })), from, to).map((value) => -value);
  }

  // The increase within the last `seconds` before each point. `spans` is the time between scrapes; where it is
  // missing, the connection was lost and earlier points are ignored.
  function within(increases, spans, from, seconds) {
    const sums = new Float64Array(increases.length).fill(NaN);
    const times = new Float64Array(increases.length).fill(NaN);
    for (let i = 0; i < increases.length; i++) {
      let sum = NaN, time = 0;
      // Half a second of tolerance for late timers, so that a point at the edge does not make the curve jump.
      for (let j = i; j >= 0 && increases[i] === increases[i] && time + 0.5 < seconds; j--) {
        const span = spans[from + j];
        if (span !== span) break;
        time += span;
        // A series that did not exist yet has not increased.
        sum = (sum === sum ? sum : 0) + (increases[j] === increases[j] ? increases[j] : 0);
      }
      sums[i] = sum;
      times[i] = time;
    }
    return { sums, times };
  }

  // Increase per second, over the last `seconds` before each point.
  function rate(increases, spans, from, seconds) {
    const { sums, times } = within(increases, spans, from, seconds);
    return sums.map((sum, i) => (times[i] > 0 ? sum / times[i] : NaN));
  }

  // As histogram_quantile of Prometheus: `counts` are cumulative, `bounds` ascend to +Infinity.
  function quantile(q, bounds, counts) {
    const last = bounds.length - 1;
    if (last < 1 || bounds[last] !== Infinity || Number.isNaN(q)) return NaN;
    // Buckets that were scraped at different moments may seem to shrink.
    const rising = [];
    counts.forEach((count, i) => rising.push(i > 0 && !(count >= rising[i - 1]) ? rising[i - 1] : count));
    const total = rising[last];
    if (!(total > 0)) return NaN;
    if (q < 0) return -Infinity;
    if (q > 1) return Infinity;
    const rank = q * total;
    const bucket = rising.findIndex((count) => count >= rank);
    if (bucket === last) return bounds[last - 1];
    if (bucket === 0 && bounds[0] <= 0) return bounds[0];
    const floor = bucket === 0 ? 0 : bounds[bucket - 1];
    const below = bucket === 0 ? 0 : rising[bucket - 1];
    return floor + (bounds[bucket] - floor) * ((rank - below) / (rising[bucket] - below));
  }

  // The quantiles of observations within the last `seconds` before each point; `buckets` are cells with a label `le`.
  function quantiles(qs, buckets, spans, from, to, seconds) {
    const byBound = new Map();
    for (const cell of buckets) {
      const bound = live.parse.number(cell.labels.get("le"));
      if (!byBound.has(bound)) byBound.set(bound, []);
      byBound.get(bound).push(cell);
    }
    const bounds = [...byBound.keys()].sort((a, b) => a - b);
    const columns = bounds.map((bound) => within(sum(byBound.get(bound), from, to), spans, from, seconds).sums);
    return qs.map((q) => {
      const found = new Float64Array(to - from).fill(NaN);
      for (let i = 0; i < found.length; i++) found[i] = quantile(q, bounds, columns.map((column) => column[i]));
      return found;
    });
  }

  // --- Format of numbers: at most three significant digits, whole numbers in full ---------------------------
  const NONE = "–";
  const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
  const short = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 2 });
  const count = (value) => (Number.isFinite(value) ? whole.format(value) : NONE);
  const compact = (value) => (Number.isFinite(value) ? short.format(value) : NONE);

  function measure(value) {
    if (!Number.isFinite(value)) return NONE;
    const size = Math.abs(value);
    if (size >= 99.95) return whole.format(value);
    if (size >= 9.995) return value.toFixed(1);
    if (size >= 0.9995) return value.toFixed(2);
    return size === 0 ? "0" : value.toFixed(3);
  }

  // Rounded down: 100 only if nothing is missing. Plus a small value, because 81.6 * 100 is slightly below 8160.
  const percent = (value) => (Number.isFinite(value) ? String(value < 100 ? Math.min(99.99, Math.floor(value * 100 + 1e-6) / 100) : value) : NONE);

  // A time in seconds as [number, unit].
  function time(value) {
    if (!Number.isFinite(value)) return [NONE, ""];
    if (value < 0.001) return [measure(value * 1e6), "µs"];
    if (value < 1) return [measure(value * 1e3), "ms"];
    return [measure(value), "s"];
  }

  // A longer time, in full seconds.
  function long(value) {
    if (!Number.isFinite(value)) return NONE;
    const all = Math.max(0, Math.floor(value));
    const [days, hours, minutes, seconds] = [Math.floor(all / 86400), Math.floor(all / 3600) % 24, Math.floor(all / 60) % 60, all % 60];
    if (days > 0) return days + " d " + hours + " h";
    if (hours > 0) return hours + " h " + minutes + " min";
    if (minutes > 0) return minutes + " min " + seconds + " s";
    return seconds + " s";
  }

  // Bytes as [number, unit].
  function bytes(value) {
    if (!Number.isFinite(value)) return [NONE, ""];
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    const unit = Math.min(units.length - 1, value < 1024 ? 0 : Math.floor(Math.log2(value) / 10));
    return [measure(value / 1024 ** unit), units[unit]];
  }

  function clock(ms, withSeconds = true) {
    const two = (value) => String(value).padStart(2, "0");
    const at = new Date(ms);
    return two(at.getHours()) + ":" + two(at.getMinutes()) + (withSeconds ? ":" + two(at.getSeconds()) : "");
  }

  live.figures = { sum, most, least, within, rate, quantile, quantiles, NONE, count, compact, measure, percent, time, long, bytes, clock };
})(window.batchsqlLive = window.batchsqlLive || {});

// The text format 0.0.4: from text to samples. Knows no metric; the caller passes the names.
(function (live) {
  "use strict";
  const NEWLINE = 10, HASH = 35, BRACE = 123, SPACE = 32;

  // A number of the format; undefined if it is not a number.
  function number(text) {
    const value = Number(text);
    if (text !== "" && !Number.isNaN(value)) return value;
    switch (text.toLowerCase()) {
      case "+inf": case "inf": return Infinity;
      case "-inf": return -Infinity;
      case "nan": return NaN;
      default: return undefined;
    }
  }

  // Calls visit(wanted.get(name), text of the labels, value) for each sample with a wanted name. Returns the number of
  // invalid lines. Labels are not parsed: the caller caches those that it has seen before.
  function scan(text, wanted, visit) {
    let broken = 0;
    // Samples of a name are consecutive, so most lines need no search by name.
    let name = "", found;
    for (let at = 0; at < text.length;) {
      let end = text.indexOf("\n", at);
      if (end < 0) end = text.length;
      const begin = at;
      at = end + 1;
      const first = text.charCodeAt(begin);
      if (begin === end || first === HASH || first === NEWLINE) continue;
      let after = begin + name.length;
      const follows = text.charCodeAt(after);
      if (name === "" || (follows !== BRACE && follows !== SPACE) || !text.startsWith(name, begin)) {
        after = begin;
        for (let code; after < end && (code = text.charCodeAt(after)) !== BRACE && code !== SPACE;) after += 1;
        name = text.slice(begin, after);
        found = wanted.get(name);
      }
      if (found === undefined) continue;
      while (text.charCodeAt(after) === SPACE) after += 1;
      // After the labels there are only numbers, so the last brace ends the labels, whatever they contain.
      let close = after;
      if (text.charCodeAt(after) === BRACE) {
        close = text.lastIndexOf("}", end - 1) + 1;
        if (close <= after) { broken += 1; continue; }
      }
      let tail = text.slice(close, end).trim();
      const gap = tail.indexOf(" ");
      if (gap > 0) tail = tail.slice(0, gap);
      const value = number(tail);
      if (value === undefined) { broken += 1; continue; }
      visit(found, text.slice(after, close), value);
    }
    return broken;
  }

  const ESCAPES = { "\\": "\\", '"': '"', n: "\n" };

  // Parses {name="value",...}; null if it is invalid.
  function labels(raw) {
    const found = new Map();
    if (raw === "") return found;
    const end = raw.length - 1;
    for (let at = 1; ;) {
      while (at < end && (raw[at] === "," || raw[at] === " ")) at += 1;
      if (at >= end) return found;
      const equals = raw.indexOf("=", at);
      if (equals < 0) return null;
      const open = raw.indexOf('"', equals);
      if (open < 0 || raw.slice(equals + 1, open).trim() !== "") return null;
      let close = open + 1;
      while (close < end && raw[close] !== '"') close += raw[close] === "\\" ? 2 : 1;
      if (close >= end) return null;
      const value = raw.slice(open + 1, close);
      const plain = value.includes("\\") ? value.replace(/\\([\\"n])/g, (_, code) => ESCAPES[code]) : value;
      found.set(raw.slice(at, equals).trim(), plain);
      at = close + 1;
    }
  }

  live.parse = { scan, labels, number };
})(window.batchsqlLive = window.batchsqlLive || {});

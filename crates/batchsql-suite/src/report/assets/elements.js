// The elements and figures of every page. Every text goes through text nodes, so that no name and no error
// message is parsed as markup. Must not know the content of a page.
(function () {
  "use strict";
  function el(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
    for (const child of children.flat()) if (child !== null && child !== undefined) node.append(child);
    return node;
  }

  // --- Figures (the same rules as number.rs) --------------------------------------------------------
  const NONE = "\u2013";
  const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
  const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 2 });
  const missing = (value) => value === null || value === undefined || !Number.isFinite(value);
  const count = (value) => (missing(value) ? NONE : whole.format(value));
  function measure(value) {
    if (missing(value)) return NONE;
    const size = Math.abs(value);
    if (size >= 99.95) return whole.format(value);
    if (size >= 9.995) return value.toFixed(1);
    if (size >= 0.9995) return value.toFixed(2);
    return size === 0 ? "0" : value.toFixed(3);
  }

  window.batchsqlPage = { el, NONE, compact, missing, count, measure };
})();

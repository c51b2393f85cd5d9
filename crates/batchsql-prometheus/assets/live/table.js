// A table with changing rows and cells; only differences are updated. Knows no metric.
(function (live) {
  "use strict";
  const { el } = live.curves;

  class Table {
    // Columns are [name, unit, row => [text, class], isNumber].
    constructor(caption, columns) {
      this.columns = columns;
      this.rows = new Map();
      this.order = "";
      // With the roles it stays a table for screen readers when a phone shows cards.
      this.body = el("tbody", { role: "rowgroup" });
      this.head = el("tr", { role: "row" }, columns.map(([name, unit, , isNumber]) =>
        el("th", { scope: "col", role: "columnheader", class: isNumber ? "number" : "" }, name, unit ? el("span", { class: "unit" }, " " + unit) : null)));
      this.node = el("table", { class: "cards", role: "table", "aria-label": caption }, el("thead", { role: "rowgroup" }, this.head), this.body);
    }

    update(rows) {
      const seen = new Set(rows.map((row) => row.key));
      for (const [key, row] of this.rows) {
        if (!seen.has(key)) { row.node.remove(); this.rows.delete(key); }
      }
      for (const data of rows) {
        const row = this.rows.get(data.key) || this.add(data.key);
        this.columns.forEach(([, , show], i) => {
          const [text, kind] = show(data);
          if (row.texts[i].data !== text) row.texts[i].data = text;
          if (row.marks[i].className !== kind) row.marks[i].className = kind;
        });
      }
      const order = JSON.stringify(rows.map((row) => row.key));
      if (order !== this.order) this.body.append(...rows.map((row) => this.rows.get(row.key).node));
      this.order = order;
    }

    add(key) {
      const texts = this.columns.map(() => document.createTextNode(""));
      const marks = texts.map((text) => el("span", {}, text));
      const node = el("tr", { role: "row" }, this.columns.map(([name, unit, , isNumber], i) =>
        el(i === 0 ? "th" : "td", { ...(i === 0 ? { scope: "row", role: "rowheader" } : { role: "cell" }), class: isNumber ? "number" : "", "data-label": name + (unit ? ", " + unit : "") }, marks[i])));
      this.rows.set(key, { node, texts, marks });
      return this.rows.get(key);
    }
  }

  live.Table = Table;
})(window.batchsqlLive = window.batchsqlLive || {});

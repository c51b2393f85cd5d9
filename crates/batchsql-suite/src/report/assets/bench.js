// The content of a page of benchmarks from the data beside it, with the elements of elements.js and the plots of
// curves.js. Must not know what was measured.
(function () {
  "use strict";
  const { el, compact, measure } = window.batchsqlPage;
  const page = JSON.parse(document.getElementById("report-data").textContent);

  function table({ head, rows, text_columns }) {
    const kind = (index) => (index < text_columns ? {} : { class: "number" });
    return el("div", { class: "figures-table" }, el("table", {},
      el("thead", {}, el("tr", {}, head.map((name, i) => el("th", { scope: "col", ...kind(i) }, name)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, i) => el("td", kind(i), cell)))))));
  }

  function section(data, index) {
    const { x, panels } = data;
    const axis = x && { label: x.label, over: x.over, names: x.names, values: x.names.map((_, i) => i),
      range: [-0.25, x.names.length - 0.75], at: (i) => x.names[i] };
    return el("section", {}, el("h2", {}, data.title), data.note ? el("p", { class: "description" }, data.note) : null,
      axis && panels.length ? window.batchsqlCurves(panels, axis, "section-" + index, { el, measure, compact }) : null,
      data.table ? table(data.table) : null);
  }

  document.title = page.title;
  document.getElementById("report").append(
    el("header", {}, el("p", { class: "eyebrow" }, page.eyebrow), el("h1", {}, page.title),
      page.lead.map((text) => el("p", { class: "description" }, text))),
    ...page.sections.map(section));
  window.batchsqlDraw();
})();

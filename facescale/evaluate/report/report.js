"use strict";
// Values under the pointer or the arrow keys, and tables as text. The page is complete without it.
for (const drawing of document.querySelectorAll("svg[data-lines]")) {
  const lines = JSON.parse(drawing.dataset.lines), output = drawing.parentNode.querySelector("output");
  const places = [...new Set(lines.flatMap(line => line.points.map(point => point[0])))].sort((a, b) => a - b);
  const rule = drawing.querySelector(".axis").cloneNode();
  rule.setAttribute("class", "cursor"); rule.setAttribute("y1", 14); rule.setAttribute("y2", 256);
  let at = -1;
  const show = place => {
    rule.setAttribute("x1", place); rule.setAttribute("x2", place); drawing.append(rule);
    output.replaceChildren();
    for (const line of lines) {
      const near = line.points.reduce((a, b) => Math.abs(b[0] - place) < Math.abs(a[0] - place) ? b : a);
      const row = document.createElement("span");
      row.className = line.style; row.textContent = `${line.label}: ${near[3]} at ${near[2]}`;
      output.append(row);
    }
  };
  drawing.addEventListener("pointermove", event => {
    const box = drawing.getBoundingClientRect();
    show(Math.min(Math.max((event.clientX - box.left) / box.width * 480, 68), 466));
  });
  drawing.addEventListener("pointerleave", () => { rule.remove(); output.replaceChildren(); });
  drawing.addEventListener("keydown", event => {
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!step) return;
    event.preventDefault();
    at = Math.min(Math.max(at + step, 0), places.length - 1);
    show(places[at]);
  });
}
const cells = table => [...table.rows].map(row => [...row.cells].map(cell => cell.innerText.trim()));
const pad = rows => { const width = Math.max(...rows.map(row => row.length)); return rows.map(row => [...row, ...Array(width - row.length).fill("")]); };
const forms = {
  Markdown: rows => rows.map((row, i) => "| " + row.map(text => text.replaceAll("|", "\\|")).join(" | ") + " |" + (i ? "" : "\n|" + "---|".repeat(row.length))).join("\n"),
  LaTeX: rows => `\\begin{tabular}{${"l" + "r".repeat(rows[0].length - 1)}}\n` + rows.map(row => row.map(text => text.replace(/[\\{}&%$#_^~]/g, sign => ({"\\": "\\textbackslash{}", "^": "\\^{}", "~": "\\~{}"}[sign] || "\\" + sign))).join(" & ") + " \\\\").join("\n") + "\n\\end{tabular}",
  CSV: rows => rows.map(row => row.map(text => /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text).join(",")).join("\n"),
};
const copy = async text => {
  try { await navigator.clipboard.writeText(text); } catch {
    const area = document.createElement("textarea");
    area.value = text; document.body.append(area); area.select(); document.execCommand("copy"); area.remove();
  }
};
for (const box of document.querySelectorAll(".table")) {
  const bar = document.createElement("div"), said = document.createElement("span");
  bar.className = "copy"; said.setAttribute("role", "status");
  for (const [name, form] of Object.entries(forms)) {
    const button = document.createElement("button"), table = box.querySelector("table");
    button.type = "button"; button.textContent = `Copy ${name}`;
    button.addEventListener("click", async () => {
      button.dataset.text = form(pad(cells(table)));
      await copy(button.dataset.text);
      said.textContent = `${name} copied`;
    });
    bar.append(button);
  }
  bar.append(said);
  box.append(bar);
}
const mark = () => { for (const box of document.querySelectorAll(".scroll")) box.classList.toggle("more", box.scrollWidth > box.clientWidth + box.scrollLeft + 2); };
addEventListener("resize", mark);
document.addEventListener("scroll", mark, true);
document.addEventListener("toggle", mark, true);
mark();

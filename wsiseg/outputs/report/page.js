"use strict";
(() => {
  const get = id => document.getElementById(id);
  const body = document.querySelector("tbody");
  const rows = [...body.rows];

  // Sorting: the value of a cell stands in data-v; rows without that cell (failed slides) stay last.
  const heads = [...document.querySelectorAll("th")];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const number = head.firstElementChild.dataset.kind === "number";
    const ascending = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach(h => h.setAttribute("aria-sort", h === head ? (ascending ? "ascending" : "descending") : "none"));
    const value = row => {
      const cell = row.cells[column];
      return cell && cell.dataset.v !== undefined && !(row.dataset.state === "failed" && column !== 1) ? cell.dataset.v : null;
    };
    const sorted = [...rows].sort((a, b) => {
      const x = value(a), y = value(b);
      if (x === null || y === null) return (x === null) - (y === null);
      const order = number ? Number(x) - Number(y) : x.localeCompare(y, undefined, { numeric: true });
      return ascending ? order : -order;
    });
    body.append(...sorted);
  }));

  // Filtering by text and by state.
  const texts = new Map(rows.map(row => [row, row.textContent.toLowerCase()]));
  const filter = () => {
    const words = get("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const state = get("show").value;
    let shown = 0;
    for (const row of rows) {
      const objects = Number(row.dataset.objects || 0);
      const fits = !state || row.dataset.state === state
        || (state === "found" && objects > 0)
        || (state === "empty" && row.dataset.state !== "failed" && objects === 0);
      row.hidden = !(fits && words.every(word => texts.get(row).includes(word)));
      shown += !row.hidden;
    }
    get("count").textContent = `${shown} of ${rows.length} slides`;
  };
  get("find").addEventListener("input", filter);
  get("show").addEventListener("change", filter);
  document.querySelector(".tools").addEventListener("submit", event => event.preventDefault());

  // Contours, everywhere at once.
  const boxes = [get("contours"), get("view-contours")];
  const contours = on => {
    boxes.forEach(box => { box.checked = on; });
    document.body.classList.toggle("no-contours", !on);
  };
  boxes.forEach(box => box.addEventListener("change", () => contours(box.checked)));

  // The large view borrows the slide's own picture and gives it back.
  const view = get("view"), stage = get("stage");
  let picture = null, home = null, box = null;
  const whole = () => ({ x: 0, y: 0, w: Number(picture.dataset.width), h: Number(picture.dataset.height) });
  const show = () => picture.setAttribute("viewBox", `${box.x} ${box.y} ${box.w} ${box.h}`);
  // Slide pixels of the picture per pixel of the screen.
  const unit = () => Math.max(box.w / stage.clientWidth, box.h / stage.clientHeight);
  const zoom = (factor, u = 0.5, v = 0.5) => {
    const full = whole(), w = Math.min(full.w, Math.max(full.w / 64, box.w * factor)), h = w * full.h / full.w;
    box = { x: box.x + (box.w - w) * u, y: box.y + (box.h - h) * v, w, h };
    move(0, 0);
  };
  const move = (dx, dy) => {
    const full = whole();
    box.x = Math.min(Math.max(box.x + dx, 0), full.w - box.w);
    box.y = Math.min(Math.max(box.y + dy, 0), full.h - box.h);
    show();
  };
  const fit = () => { box = whole(); show(); };
  body.addEventListener("click", event => {
    const button = event.target.closest(".open");
    if (!button) return;
    home = button;
    picture = button.querySelector(".slide");
    get("view-title").textContent = picture.dataset.title;
    stage.append(picture);
    view.showModal();
    fit();
    stage.focus();
  });
  view.addEventListener("close", () => {
    fit();
    home.append(picture);
    home.focus();
  });
  get("close").addEventListener("click", () => view.close());
  get("in").addEventListener("click", () => zoom(1 / 1.5));
  get("out").addEventListener("click", () => zoom(1.5));
  get("fit").addEventListener("click", fit);
  stage.addEventListener("wheel", event => {
    event.preventDefault();
    // Where in the shown part the pointer is; the picture is centred in the stage.
    const at = stage.getBoundingClientRect(), k = unit();
    const u = 0.5 + (event.clientX - at.left - at.width / 2) * k / box.w;
    const v = 0.5 + (event.clientY - at.top - at.height / 2) * k / box.h;
    zoom(event.deltaY < 0 ? 1 / 1.25 : 1.25, Math.min(1, Math.max(0, u)), Math.min(1, Math.max(0, v)));
  }, { passive: false });
  let held = null;
  stage.addEventListener("pointerdown", event => { held = event; stage.setPointerCapture(event.pointerId); });
  stage.addEventListener("pointermove", event => {
    if (!held) return;
    move((held.clientX - event.clientX) * unit(), (held.clientY - event.clientY) * unit());
    held = event;
  });
  for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, () => { held = null; });
  view.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = box.w / 8;
    const keys = {
      "+": () => zoom(1 / 1.5), "=": () => zoom(1 / 1.5), "-": () => zoom(1.5), "0": fit,
      "c": () => contours(!boxes[1].checked),
      "ArrowLeft": () => move(-step, 0), "ArrowRight": () => move(step, 0),
      "ArrowUp": () => move(0, -step), "ArrowDown": () => move(0, step),
    };
    if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  });
})();

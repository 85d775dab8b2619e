"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (id) => document.getElementById(id);
  const chosen = (id) => (one(id) ? one(id).value : null);

  // Show the figures of the place, layer and cost that are picked, without unticked estimators.
  const boxes = all("input[data-estimator]");
  const hidden = document.head.appendChild(document.createElement("style"));

  const choose = () => {
    const picked = {
      place: chosen("pick-place"),
      layer: chosen("pick-layer"),
      cost: chosen("pick-cost"),
    };
    let shown = 0;
    for (const figure of all("figure[data-kind]")) {
      const fits = Object.entries(picked).every(
        ([key, value]) => value === null || !(key in figure.dataset) || figure.dataset[key].split("|").includes(value),
      );
      figure.hidden = !fits;
      shown += fits;
    }
    one("no-figure").hidden = shown > 0;
  };

  const tick = () => {
    const off = boxes.filter((box) => !box.checked).map((box) => box.dataset.estimator);
    hidden.textContent = off.length
      ? off.map((e) => `[data-e="${e}"]`).join(",") + "{display:none}"
      : "";
  };

  const set = (some, checked) => {
    for (const box of some) box.checked = checked;
    tick();
  };
  for (const id of ["pick-place", "pick-layer", "pick-cost"]) {
    if (one(id)) one(id).addEventListener("change", choose);
  }
  for (const box of boxes) box.addEventListener("change", tick);
  for (const button of all("button[data-pick]")) {
    button.addEventListener("click", () => set(boxes, button.dataset.pick === "all"));
  }
  for (const button of all("button[data-family]")) {
    const own = new Set(button.dataset.family.split(" "));
    const some = boxes.filter((box) => own.has(box.dataset.estimator));
    button.addEventListener("click", () => set(some, !some.every((box) => box.checked)));
  }
  // Pointing at a name dims the others; pointing at a part of a figure shows its name.
  const dimmed = document.head.appendChild(document.createElement("style"));
  for (const box of boxes) {
    const label = box.closest("label");
    const name = label.textContent.trim();
    label.addEventListener("pointerenter", () => {
      dimmed.textContent = `.gallery [data-e]:not([data-e="${box.dataset.estimator}"]){opacity:.12}`;
    });
    label.addEventListener("pointerleave", () => {
      dimmed.textContent = "";
    });
    for (const part of all(`[data-e="${box.dataset.estimator}"]`)) {
      const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
      title.textContent = name;
      part.prepend(title);
    }
  }
  choose();
  tick(); // a browser may remember ticks from before a reload

  // The main table: filter its rows, and show intervals.
  const table = one("main");
  const rows = all("tbody tr", table);
  const filter = () => {
    const place = chosen("filter-place");
    const layer = chosen("filter-layer");
    const text = chosen("filter-name").trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      row.hidden = !(
        (!place || row.dataset.place === place) &&
        (!layer || row.dataset.layer === layer) &&
        row.cells[0].textContent.toLowerCase().includes(text)
      );
      shown += !row.hidden;
    }
    table.classList.toggle("one-place", Boolean(place)); // a column with a single value is hidden
    table.classList.toggle("one-layer", Boolean(layer));
    one("row-count").textContent = `${shown} of ${rows.length} rows shown.`;
  };
  for (const id of ["filter-place", "filter-layer"]) {
    if (one(id)) one(id).addEventListener("change", filter);
  }
  one("filter-name").addEventListener("input", filter);
  filter();

  const intervals = one("intervals");
  const say = () => {
    for (const small of all("small.interval", table)) small.remove();
    if (!intervals.checked) return;
    for (const cell of all("td[title]", table)) {
      const small = document.createElement("small");
      small.className = "interval";
      small.textContent = cell.title.replace(/^95 %: /, "");
      cell.append(small);
    }
  };
  intervals.addEventListener("change", say);
  say();

  // A click or Enter on a header sorts: first with the better values on top, then reversed.
  for (const sortable of all("table.numbers, table.bias")) {
    const body = sortable.tBodies[0];
    for (const header of all("thead th", sortable)) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      header.append(button);
      button.addEventListener("click", () => {
        const before = header.getAttribute("aria-sort");
        const first = header.dataset.better === "high" ? "descending" : "ascending";
        const other = first === "ascending" ? "descending" : "ascending";
        const order = before === first ? other : first;
        for (const each of all("thead th", sortable)) each.removeAttribute("aria-sort");
        header.setAttribute("aria-sort", order);
        sort(body, header.cellIndex, order === "ascending" ? 1 : -1);
      });
    }
  }

  function sort(body, column, sign) {
    const key = (row) => {
      const cell = row.cells[column];
      return "v" in cell.dataset ? Number(cell.dataset.v) : null;
    };
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === null && y === null) {
        return sign * a.cells[column].textContent.localeCompare(b.cells[column].textContent);
      }
      if (x === null || y === null) return x === null ? 1 : -1; // unknown values come last
      return sign * (x - y);
    };
    body.append(...[...body.rows].sort(compare));
  }
})();

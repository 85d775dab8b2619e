"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (id) => document.getElementById(id);
  const chosen = (id) => (one(id) ? one(id).value : null);

  // Show the figures of the place, layer and cost that are picked, without unticked estimators.
  // Those of the whole suite have a line of text for each estimator, or a legend: they stay whole.
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

  let off = new Set();
  const isOff = (part, svg) => off.has(part.dataset.e) && svg.closest(".gallery") !== null;
  const tick = () => {
    off = new Set(boxes.filter((box) => !box.checked).map((box) => box.dataset.estimator));
    hidden.textContent = off.size
      ? [...off].map((e) => `.gallery [data-e="${e}"]`).join(",") + "{display:none}"
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
  // Pointing at a name dims the others.
  const dimmed = document.head.appendChild(document.createElement("style"));
  const names = {};
  for (const box of boxes) {
    const label = box.closest("label");
    names[box.dataset.estimator] = label.textContent.trim();
    label.addEventListener("pointerenter", () => {
      dimmed.textContent = `.gallery [data-e]:not([data-e="${box.dataset.estimator}"]){opacity:.12}`;
    });
    label.addEventListener("pointerleave", () => {
      dimmed.textContent = "";
    });
  }

  // Pointing at a figure shows the name and the values of the nearest point.
  const tip = document.body.appendChild(document.createElement("div"));
  tip.className = "tip";
  tip.setAttribute("role", "status");
  tip.hidden = true;
  const REACH = 24; // pixels
  for (const svg of all(".card svg:not(.swatch)")) {
    let points = null;
    svg.addEventListener("pointermove", (event) => {
      points ??= all("[data-p]", svg).flatMap((part) =>
        part.dataset.p.split(" ").map((text) => ({ part, at: text.split(",").map(Number) })),
      );
      const box = svg.getBoundingClientRect();
      const scale = box.width / svg.viewBox.baseVal.width;
      let [found, least] = [null, REACH];
      for (const point of points) {
        if (isOff(point.part, svg)) continue;
        const [x, y] = point.at;
        const far = Math.hypot(box.left + x * scale - event.clientX, box.top + y * scale - event.clientY);
        if (far < least) [found, least] = [point, far];
      }
      const owner = event.target.closest("[data-e]"); // a line between two points
      tip.hidden = !found && !owner;
      if (tip.hidden) return;
      const lines = [names[(found ? found.part : owner).dataset.e] ?? ""];
      if (found) {
        const { x, y } = found.part.dataset;
        const [, , across, up] = found.at;
        lines.push(`${y || "value"}: ${up}`, `${x || "at"}: ${across}`);
      }
      tip.textContent = lines.join("\n");
      const width = document.documentElement.clientWidth;
      tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, width - tip.offsetWidth - 4))}px`;
      tip.style.top = `${event.clientY + 16}px`;
    });
    svg.addEventListener("pointerleave", () => {
      tip.hidden = true;
    });
  }

  // Every figure and table can be saved: as it is shown, with all columns.
  const save = (name, type, text) => {
    const link = document.createElement("a");
    const url = URL.createObjectURL(new Blob([text], { type }));
    link.href = url;
    link.download = name.toLowerCase().replace(/[^a-z0-9.]+/g, "-").replace(/-+(?=\.|$)/g, "");
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  };
  for (const button of all("button[data-svg]")) {
    button.addEventListener("click", () => {
      const shown = button.closest("figure").querySelector("svg:not(.swatch)");
      const svg = shown.cloneNode(true);
      for (const part of all("[data-e]", svg)) {
        if (isOff(part, shown)) part.remove();
        for (const key of Object.keys(part.dataset)) delete part.dataset[key];
      }
      const { width, height } = svg.viewBox.baseVal;
      svg.setAttribute("width", `${width}pt`);
      svg.setAttribute("height", `${height}pt`);
      svg.setAttribute("style", "font-family: 'DejaVu Sans', Verdana, sans-serif; background: #fff");
      const text = new XMLSerializer().serializeToString(svg);
      save(`${button.dataset.svg}.svg`, "image/svg+xml", `<?xml version="1.0"?>\n${text}\n`);
    });
  }
  const plain = (cell) => {
    const items = all("li", cell).map((item) => [...item.children].map((x) => x.textContent.trim()).join(": "));
    const text = items.length ? items.join("; ") : cell.childNodes.length ? cell.textContent : "";
    const line = text.replace(/\s+/g, " ").trim();
    return /^[=+\-@]/.test(line) ? `'${line}` : line; // a spreadsheet would compute it
  };
  const number = (cell) => "v" in cell.dataset && !cell.matches("th, .text");
  for (const button of all("button[data-csv]")) {
    button.addEventListener("click", () => {
      const chosen = all("tr", one(button.dataset.csv)).filter((row) => !row.hidden);
      let before = ""; // what spans several rows is repeated
      const lines = chosen.map((row) => {
        const cells = [...row.cells].flatMap((cell) => {
          const clone = cell.cloneNode(true);
          for (const small of all("small.interval", clone)) small.remove();
          return [number(cell) ? cell.dataset.v : plain(clone)];
        });
        if (row.cells[0].rowSpan > 1) before = cells[0];
        else if (before && cells.length < chosen[0].cells.length) cells.unshift(before);
        return cells.map((text) => `"${text.replace(/"/g, '""')}"`).join(",");
      });
      save(`${button.dataset.file}.csv`, "text/csv", `${lines.join("\r\n")}\r\n`);
    });
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
        row.dataset.name.toLowerCase().includes(text)
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

  const more = one("all-metrics");
  const widen = () => table.classList.toggle("all-metrics", more.checked);
  more.addEventListener("change", widen);
  widen();

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

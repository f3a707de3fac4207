"use strict";
(() => {
  const section = document.getElementById("soft-labels");
  if (!section) return;
  const items = JSON.parse(document.getElementById("soft-label-data").textContent);
  const choice = section.querySelector("select");
  const picture = section.querySelector(".chosen img");
  const caption = section.querySelector(".chosen figcaption");
  const rows = Array.from(section.querySelectorAll("tbody tr"));
  const [previous, next] = section.querySelectorAll("button");

  function fillRow(row, [name, hard, percents]) {
    const head = row.querySelector("th");
    head.textContent = name;
    head.classList.toggle("own", hard);
    row.querySelectorAll("td").forEach((cell, place) => {
      const value = percents[place];
      const width = value === null ? 0 : Math.min(100, Math.max(0, value));
      cell.querySelector(".bar span").style.width = width + "%";
      cell.querySelector(".value").textContent = value === null ? "\u2013" : value.toFixed(1);
    });
  }

  function show(place) {
    const item = items[place];
    const source = document.getElementById("synthetic-" + item.index);
    for (const name of ["src", "alt", "width", "height"]) {
      picture.setAttribute(name, source.getAttribute(name));
    }
    caption.textContent = item.title;
    rows.forEach((row, index) => fillRow(row, item.rows[index]));
    choice.selectedIndex = place;
    previous.disabled = place === 0;
    next.disabled = place === items.length - 1;
  }

  const step = (by) => () => {
    show(Math.min(items.length - 1, Math.max(0, choice.selectedIndex + by)));
  };
  choice.addEventListener("change", () => show(choice.selectedIndex));
  previous.addEventListener("click", step(-1));
  next.addEventListener("click", step(1));
  section.querySelector(".chooser").hidden = false;
  show(0);
})();

"use strict";
(() => {
  const points = Array.from(document.querySelectorAll(".point"));
  if (!points.length) return;
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.setAttribute("role", "tooltip");
  tip.hidden = true;
  document.body.append(tip);

  function show(point) {
    tip.textContent = point.getAttribute("aria-label");
    tip.hidden = false;
    const at = point.querySelector("circle").getBoundingClientRect();
    const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
    const left = Math.max(8, Math.min(room, at.left + at.width / 2 - tip.offsetWidth / 2));
    const above = at.top - tip.offsetHeight - 8;
    tip.style.left = window.scrollX + left + "px";
    tip.style.top = window.scrollY + (above < 0 ? at.bottom + 8 : above) + "px";
  }
  const hide = () => { tip.hidden = true; };

  function step(point, key) {
    const chart = Array.from(point.closest("svg").querySelectorAll(".point"));
    const here = chart.indexOf(point);
    const last = chart.length - 1;
    const places = {
      ArrowRight: Math.min(last, here + 1), ArrowLeft: Math.max(0, here - 1), Home: 0, End: last,
    };
    if (!(key in places)) return false;
    for (const other of chart) other.setAttribute("tabindex", "-1");
    chart[places[key]].setAttribute("tabindex", "0");
    chart[places[key]].focus();
    return true;
  }

  for (const point of points) {
    // One stop of the Tab key for each plot; the arrow keys move along its points.
    const first = point.closest("svg").querySelector(".point");
    point.setAttribute("tabindex", point === first ? "0" : "-1");
    point.addEventListener("pointerenter", () => show(point));
    point.addEventListener("pointerleave", hide);
    point.addEventListener("focus", () => show(point));
    point.addEventListener("blur", hide);
    point.addEventListener("keydown", (event) => {
      if (step(point, event.key)) event.preventDefault();
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
  });
})();

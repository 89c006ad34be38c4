// What the map does with JavaScript: it says what is pointed at, and is walked with arrow keys.
//
// Everything it says and every address it opens is in the list below the map, which needs no script.
"use strict";

const REACH = 4; // how far from a mark, in units of the picture, still points at it
const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function readyMap() {
  const map = document.getElementById("map");
  if (!map) return;
  const picture = map.querySelector("svg");
  const here = document.getElementById("here");
  const pointed = document.getElementById("pointed");
  const marks = [...picture.querySelectorAll("a[data-n]")].map((link) => ({
    link,
    n: link.dataset.n,
    x: Number(link.dataset.x),
    y: Number(link.dataset.y),
  }));
  const byNumber = new Map(marks.map((mark) => [mark.n, mark]));
  let current = null;

  // Said below the map instead of in a small window of the browser's.
  for (const title of picture.querySelectorAll("title")) title.remove();

  function choose(mark, listed) {
    if (mark === current) return;
    if (current) document.getElementById("n" + current.n).classList.remove("lit");
    current = mark;
    here.setAttribute("cx", mark ? mark.x : -9);
    here.setAttribute("cy", mark ? mark.y : -9);
    map.classList.toggle("pointing", Boolean(mark));
    if (!mark) return;
    const entry = document.getElementById("n" + mark.n);
    entry.classList.add("lit");
    if (listed) return;
    pointed.replaceChildren(...[...entry.children].map((child) => child.cloneNode(true)));
  }

  function nearest(event) {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(
      picture.getScreenCTM().inverse());
    let best = null;
    let least = REACH;
    for (const mark of marks) {
      const away = Math.hypot(mark.x - at.x, mark.y - at.y);
      if (away < least) [best, least] = [mark, away];
    }
    return best;
  }

  // The nearest mark in a direction: what lies aside counts double.
  function next(way) {
    if (!current) return marks[0];
    let best = null;
    let least = Infinity;
    for (const mark of marks) {
      const [dx, dy] = [mark.x - current.x, mark.y - current.y];
      const ahead = dx * way[0] + dy * way[1];
      const aside = Math.abs(dx * way[1]) + Math.abs(dy * way[0]);
      if (ahead <= 0.01 || aside > 2 * ahead) continue;
      const away = ahead + 2 * aside;
      if (away < least) [best, least] = [mark, away];
    }
    return best || current;
  }

  map.tabIndex = 0;
  map.setAttribute("role", "group");
  map.setAttribute("aria-label", map.dataset.help);
  picture.addEventListener("pointermove", (event) => {
    const mark = nearest(event);
    if (mark) choose(mark);
  });
  picture.addEventListener("click", (event) => {
    const mark = nearest(event);
    if (!mark) return;
    // A finger points first and opens with what is said below.
    if (event.pointerType === "touch") event.preventDefault();
    else if (!event.target.closest("a")) location.assign(mark.link.getAttribute("href"));
    choose(mark);
  });
  map.addEventListener("keydown", (event) => {
    const way = WAYS[event.key];
    if (way && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      choose(next(way));
    } else if (event.key === "Enter" && current) {
      location.assign(current.link.getAttribute("href"));
    } else if (event.key === "Escape") {
      choose(null);
    }
  });
  for (const list of document.querySelectorAll(".region .memories")) {
    for (const kind of ["pointerover", "focusin"]) {
      list.addEventListener(kind, (event) => {
        const entry = event.target.closest("[data-n]");
        if (entry) choose(byNumber.get(entry.dataset.n), true);
      });
    }
  }
}

readyMap();

"use strict";
const EVERY = 2000; // milliseconds
let before = new Map(); // data-key to number
let beforeAt = 0;

function totals() {
  const found = new Map();
  for (const element of document.querySelectorAll("[data-total]")) {
    found.set(element.dataset.key, Number(element.dataset.total));
  }
  return found;
}

function inWords(rate) {
  const units = [[1e9, "G"], [1e6, "M"], [1e3, "k"]];
  for (const [size, name] of units) {
    if (rate >= size) return (rate / size).toPrecision(3) + " " + name;
  }
  return rate === 0 ? "0" : rate < 10 ? rate.toFixed(1) : rate.toFixed(0);
}

function showRates(now) {
  const seconds = (now - beforeAt) / 1000;
  for (const element of document.querySelectorAll(".rate")) {
    const old = before.get(element.dataset.key);
    if (old === undefined) continue;
    const rate = Math.max(0, Number(element.dataset.total) - old) / seconds;
    element.textContent = element.tagName === "B" ? inWords(rate) : rate > 0 ? inWords(rate) + "/s" : "";
  }
}

async function update() {
  try {
    const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(EVERY * 4) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const now = performance.now();
    document.querySelector("main").replaceWith(page.querySelector("main"));
    document.title = page.title;
    showRates(now);
    before = totals();
    beforeAt = now;
  } catch (error) {
    const live = document.getElementById("live");
    live.className = "bad";
    live.textContent = `no answer since ${Math.round((performance.now() - beforeAt) / 1000)} s: what you see is old (${error.message})`;
  }
  setTimeout(update, EVERY);
}

before = totals();
beforeAt = performance.now();
setTimeout(update, EVERY);

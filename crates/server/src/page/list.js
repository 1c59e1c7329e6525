"use strict";
// Keeps the list up to date: asks for the same page again while somebody looks at it.

const PAUSE = 2000;
const live = document.getElementById("live");
const state = document.getElementById("status");

/** Shows what is new without taking the reader's focus or selection away. */
function show(fresh) {
  const counts = fresh.getElementById("status").textContent;
  if (state.textContent !== counts) state.textContent = counts;
  const news = fresh.getElementById("live");
  const selects = !getSelection().isCollapsed && live.contains(getSelection().anchorNode);
  if (selects || news.innerHTML === live.innerHTML) return;
  const focused = live.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  live.replaceChildren(...news.childNodes);
  if (focused === null) return;
  const links = [...live.querySelectorAll("a")];
  links.find(link => link.getAttribute("href") === focused)?.focus({ preventScroll: true });
}

async function refresh() {
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    if (!answer.ok) throw new Error(String(answer.status));
    show(new DOMParser().parseFromString(await answer.text(), "text/html"));
  } catch {
    state.textContent = "The service does not answer; trying again";
  }
}

async function forever() {
  for (;;) {
    await new Promise(resolve => setTimeout(resolve, PAUSE));
    if (document.visibilityState === "visible") await refresh();
  }
}

document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") refresh();
});
forever();

"use strict";
// Keeps the page of a build up to date: its log line by line as the service tells it, the
// rest by asking for the same page again, until the build is over.

const PAUSE = 1000;
const FLUSH = 60;                  // lines of this many milliseconds are shown together
const KEPT = 4 << 20;              // characters of the log that are kept in the page
const AT_END = 40;                 // pixels from the end at which the reader follows it
const PARTS = ["status", "actions", "facts", "steps"];
const log = document.getElementById("log");
const note = document.getElementById("log-state");
const live = log.dataset.live === "true";

/** What a terminal would show of a line; carriage returns come as a visible sign. */
function plain(line) {
  const text = line
    .replace(/\x1b\[[^@-~]*[@-~]?/g, "")
    .replace(/\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\?)?/g, "")
    .replace(/\x1b./g, "");
  const last = text.split("␍").findLast(part => part !== "") ?? "";
  return last.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, "");
}

let waiting = [];
let length = log.textContent.length;

function add(line) {
  if (waiting.length === 0) setTimeout(flush, FLUSH);
  waiting.push(plain(line) + "\n");
}

function flush() {
  const follows = log.scrollHeight - log.scrollTop - log.clientHeight < AT_END;
  const text = waiting.join("");
  waiting = [];
  log.append(text);                // as text, never as HTML: commands print what they like
  length += text.length;
  while (length > KEPT && log.childNodes.length > 1) {
    length -= log.firstChild.textContent.length;
    log.firstChild.remove();
  }
  if (follows) log.scrollTop = log.scrollHeight;
}

/** Follows the log from a byte on. A browser comes back by itself, and says where it was. */
function follow(offset) {
  const events = new EventSource(`${log.dataset.events}?offset=${offset}`);
  events.onopen = () => { note.textContent = "live"; };
  events.addEventListener("log", event => {
    offset = event.lastEventId;
    add(event.data);
  });
  events.addEventListener("end", () => {
    events.close();
    note.textContent = "";
    refresh();
  });
  events.onerror = () => {
    note.textContent = "connecting again";
    // It gives up where the answer was no stream of events, as while the service restarts.
    if (events.readyState === EventSource.CLOSED) setTimeout(follow, PAUSE, offset);
  };
}

/** Takes over the parts that are new; gives whether the build is over. */
function show(fresh) {
  for (const part of PARTS) {
    const old = document.getElementById(part), news = fresh.getElementById(part);
    const focused = old.contains(document.activeElement);
    if (old.innerHTML === news.innerHTML) continue;
    old.replaceChildren(...news.childNodes);
    if (focused) old.querySelector("button, a")?.focus({ preventScroll: true });
  }
  return fresh.getElementById("log").dataset.live !== "true";
}

async function refresh() {
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    if (!answer.ok) return false;
    return show(new DOMParser().parseFromString(await answer.text(), "text/html"));
  } catch {
    return false;                  // the log says that it is connecting again
  }
}

async function untilOver() {
  for (;;) {
    await new Promise(resolve => setTimeout(resolve, PAUSE));
    if (document.visibilityState === "visible" && await refresh()) return;
  }
}

log.scrollTop = log.scrollHeight;
if (live) {
  follow(log.dataset.offset);
  untilOver();
}

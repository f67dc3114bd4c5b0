// The labelling page: what is shown, what a key does, and the way of an answer to the server.

import { Clock } from "./clock.js";
import { assignKeys, isUsable, readChosen, storeChosen } from "./keys.js";
import { showNumbers } from "./numbers.js";
import { Outbox } from "./outbox.js";
import { Pictures } from "./pictures.js";
import { get, post, Refused } from "./server.js";
import { draw, HALVES } from "./view.js";

const AHEAD = 5;          // pictures decoded ahead; fewer queries than this: lease more
const POST_MOST = 50;     // answers in one POST, as the server takes them
const RENEW_EVERY = 30_000;
const POLL_EVERY = 4_000;
const RETRY_FIRST = 500;
const RETRY_LAST = 10_000;

const at = (id) => document.getElementById(id);
const canvas = at("view");
const clock = new Clock();
const pictures = new Pictures();

const page = {
  session: null,
  outbox: null,
  keys: [],
  queue: [],       // queries to answer, the first one is shown
  trail: [],       // {query, status, class_name}: own answers, oldest first
  back: 0,         // answers back from the end of the trail; 0: the query that waits
  shown: null,     // {query, pictures}: what is on the canvas
  zoom: 2,
  hasMarker: true,
  unsent: [],
  waiting: 0,
  changing: null,  // class whose key is being changed
  lastContact: 0,
  isLeasing: false,
  isSending: false,
};

const item = () => page.back
  ? page.trail[page.trail.length - page.back]
  : page.queue.length ? { query: page.queue[0], status: null, class_name: null } : null;

function say(text, isBad = false) {
  at("message").textContent = text;
  at("message").classList.toggle("bad", isBad);
}

// ---- from the server -------------------------------------------------------------------------

function heard(reply) {
  page.lastContact = Date.now();
  if (reply.waiting !== undefined) page.waiting = reply.waiting;
}

async function lease() {
  if (page.isLeasing) return;
  page.isLeasing = true;
  try {
    const away = Date.now() - page.lastContact > 1000 * page.session.ttl_seconds;
    if (away && page.lastContact) page.queue.length = Math.min(page.queue.length, 1);
    const have = [...page.queue.map((one) => one.query_id), ...page.unsent.map((one) => one.query_id)];
    const reply = await post("/api/lease", { have: [...new Set(have)].slice(-500) });
    heard(reply);
    const known = new Set(page.queue.map((one) => one.query_id));
    page.queue.push(...reply.queries.filter((one) => !known.has(one.query_id)));
    if (!page.queue.length) say(page.waiting
      ? `Nothing waits for you; ${page.waiting} wait for somebody else.`
      : "All is answered. The run's command carries on; new pixels come up here by themselves.");
    else if (!page.shown) say("");
  } catch (error) {
    trouble(error);
  } finally {
    page.isLeasing = false;
  }
  await show();
}

function trouble(error) {
  if (error instanceof Refused && error.status === 401) {
    say("You are signed out: open the link that `madbal annotate` printed. "
      + "Answers that were not sent stay in this browser.", true);
  } else if (error instanceof Refused) {
    say(error.message, true);
  } else {
    say("The server is not reached. You may go on; answers are kept in this browser.", true);
  }
}

// ---- to the server ---------------------------------------------------------------------------

async function send() {
  if (page.isSending) return;
  page.isSending = true;
  let pause = RETRY_FIRST;
  let isAlone = false;
  while (page.unsent.length) {
    const batch = page.unsent.slice(0, isAlone ? 1 : POST_MOST);
    try {
      heard(await post("/api/answers", { answers: batch.map(({ order, query, ...answer }) => answer) }));
      await drop(batch);
      if (pause !== RETRY_FIRST) say("The server is back; everything is sent.");
      pause = RETRY_FIRST;
      isAlone = false;
    } catch (error) {
      const isFinal = error instanceof Refused && [400, 409, 413].includes(error.status);
      if (isFinal && batch.length > 1) {
        isAlone = true;  // find the one that is refused; the others are taken
        continue;
      }
      if (isFinal) {
        await drop(batch);
        say(`An answer was refused: ${error.message}`, true);
        continue;
      }
      trouble(error);
      await new Promise((resolve) => setTimeout(resolve, pause));
      pause = Math.min(2 * pause, RETRY_LAST);
    }
  }
  page.isSending = false;
}

async function drop(batch) {
  await page.outbox.remove(batch);
  const sent = new Set(batch.map((one) => one.order));
  page.unsent = page.unsent.filter((one) => !sent.has(one.order));
  progress();
}

async function keep(query, status, className, milliseconds) {
  await page.outbox.add({
    uuid: crypto.randomUUID(), query_id: query.query_id, status, class_name: className, milliseconds, query,
  });
  page.unsent = await page.outbox.all();
  send();
}

// ---- what the annotator does -----------------------------------------------------------------

async function answer(status, className = null) {
  const current = item();
  if (!current || page.shown?.query !== current.query) return;  // nobody answers what is not shown
  await keep(current.query, status, className, clock.read());
  if (page.back) {
    Object.assign(current, { status, class_name: className });
    page.back -= 1;
  } else {
    page.queue.shift();
    page.trail.push({ query: current.query, status, class_name: className });
  }
  say(`${current.query.image_id}: ${className ?? status}`);
  await show();
}

async function undo() {
  const place = page.back ? page.trail.length - page.back : page.trail.length - 1;
  if (place < 0) return say("There is nothing to undo.");
  const [{ query }] = page.trail.splice(place, 1);
  await keep(query, "undone", null, page.back ? clock.read() : 0);
  page.queue = [query, ...page.queue.filter((one) => one.query_id !== query.query_id)];
  page.back = 0;
  say("Taken back; answer it again.");
  await show();
}

async function move(step) {
  const back = Math.max(0, Math.min(page.trail.length, page.back + step));
  if (back === page.back) return;
  page.back = back;
  say(back ? `Your answer ${page.trail.length - back + 1} of ${page.trail.length}; another one replaces it.` : "");
  await show();
}

function zoom(step) {
  page.zoom = Math.max(0, Math.min(HALVES.length - 1, page.zoom + step));
  redraw();
}

function mark(isVisible) {
  page.hasMarker = isVisible;
  document.querySelector("[data-do=marker]").setAttribute("aria-pressed", String(!isVisible));
  redraw();
}

const DEEDS = {
  void: () => answer("void"),
  skip: () => answer("skipped"),
  unsure: () => answer("unsure"),
  undo,
  back: () => move(1),
  forth: () => move(-1),
  closer: () => zoom(-1),
  wider: () => zoom(1),
  marker: () => mark(!page.hasMarker),
};
const KEYS = {
  0: "void", ".": "skip", "?": "unsure", Backspace: "undo", ArrowLeft: "back", ArrowRight: "forth",
  "+": "closer", "=": "closer", "-": "wider",
};

let work = Promise.resolve();
/** Do one thing after the other: a key that comes while an answer is being kept waits for it. */
function enqueue(deed) {
  work = work.then(deed).catch((error) => say(`This browser cannot keep the answer: ${error}`, true));
}

function pressed(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
  if (event.key === "Shift" && !event.repeat) return mark(false);
  if (event.repeat && !event.key.startsWith("Arrow")) return;
  if (page.changing !== null) {
    event.preventDefault();
    return changeKey(event.key);
  }
  const index = event.key.length === 1 ? page.keys.indexOf(event.key) : -1;
  const deed = KEYS[event.key];
  if (index >= 0) {
    event.preventDefault();
    enqueue(() => answer("labelled", page.session.classes[index].name));
  } else if (deed) {
    event.preventDefault();
    enqueue(DEEDS[deed]);
  }
}

// ---- what is seen ----------------------------------------------------------------------------

let asked = 0;
async function show() {
  const current = item();
  progress();
  for (const button of at("classes").querySelectorAll(".class")) {
    button.classList.toggle("given", current?.status === "labelled" && button.dataset.name === current.class_name);
  }
  for (const [deed, status] of [["void", "void"], ["skip", "skipped"], ["unsure", "unsure"]]) {
    document.querySelector(`[data-do=${deed}]`).classList.toggle("given", current?.status === status);
  }
  if (page.queue.length < AHEAD && !page.isLeasing) setTimeout(lease, page.queue.length ? 0 : POLL_EVERY);
  if (!current) {
    page.shown = null;
    at("where").textContent = "";
    return redraw();
  }
  const turn = ++asked;
  try {
    const found = await pictures.of(current.query);
    if (turn !== asked) return;
    const isNew = page.shown?.query !== current.query;
    page.shown = { query: current.query, pictures: found };
    if (isNew) clock.restart();
    at("where").textContent = `${current.query.image_id}, column ${current.query.x}, row ${current.query.y}`;
    redraw();
  } catch {
    if (turn !== asked) return;
    page.shown = null;
    redraw();
    say("The picture does not come; it is tried again.", true);
    setTimeout(() => turn === asked && show(), RETRY_FIRST * 4);
  }
  pictures.prefetch(page.queue.slice(page.back ? 0 : 1, AHEAD + 1));
}

function redraw() {
  const centre = draw(canvas, page.shown?.query ?? null, page.shown?.pictures, page);
  canvas.dataset.query = page.shown?.query.query_id ?? "";
  canvas.dataset.centre = JSON.stringify(centre);
}

function progress() {
  const done = page.trail.length;
  at("bar").max = Math.max(1, done + page.waiting);
  at("bar").value = done;
  at("count").textContent = `${done} answered by you, ${page.waiting} waiting in all`;
  at("unsent").textContent = page.unsent.length ? `${page.unsent.length} not sent` : "";
}

function palette() {
  const { classes } = page.session;
  const place = `madbal-keys ${JSON.stringify(classes.map((one) => one.name))}`;
  page.keys = assignKeys(classes.map((one) => one.name), readChosen(place));
  at("classes").replaceChildren(...classes.map(({ name, color }, index) => {
    const line = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "class";
    button.dataset.name = name;
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.backgroundColor = `rgb(${color.join(" ")})`;
    button.append(swatch, name);
    button.addEventListener("click", () => enqueue(() => answer("labelled", name)));
    const key = document.createElement("button");
    key.type = "button";
    key.className = "key";
    key.setAttribute("aria-label", `key of ${name}: ${page.keys[index] || "none"}; change it`);
    const letter = document.createElement("kbd");
    letter.textContent = page.keys[index] || "–";
    key.append(letter);
    key.addEventListener("click", () => {
      page.changing = { name, place };
      say(`Press the new key of ${name} (letter or digit 1-9); Escape leaves it.`);
    });
    line.append(button, key);
    return line;
  }));
}

function changeKey(key) {
  const { name, place } = page.changing;
  if (key === "Escape") {
    page.changing = null;
    return say("");
  }
  if (!isUsable(key)) return say(`${key} has a use of its own; press a letter or a digit from 1 to 9.`, true);
  page.changing = null;
  const chosen = Object.fromEntries(Object.entries(readChosen(place)).filter(([, old]) => old !== key));
  storeChosen(place, { ...chosen, [name]: key });
  palette();
  say(`${key} is the key of ${name}.`);
}

async function numbers() {
  if (!at("numbers").open || document.hidden) return;
  try {
    showNumbers(at("table"), await get("/api/numbers"));
  } catch (error) {
    trouble(error);
  }
}

async function active() {
  if (!page.session || Date.now() - page.lastContact < RENEW_EVERY) return;
  const wasAway = Date.now() - page.lastContact > 1000 * page.session.ttl_seconds;
  page.lastContact = Date.now();
  if (wasAway) return lease();
  post("/api/renew", {}).then(heard, () => {});
}

// ---- start -----------------------------------------------------------------------------------

async function start() {
  page.session = await get("/api/introduction");
  page.outbox = await Outbox.open(`madbal ${page.session.run_id} ${page.session.annotator}`);
  at("title").textContent = page.session.title;
  document.title = `${page.session.title}: madbal annotate`;
  at("who").textContent = page.session.annotator;
  page.trail = page.session.history.map(({ status, class_name, ...query }) => ({ query, status, class_name }));
  page.unsent = await page.outbox.all();
  for (const { query, status, class_name } of page.unsent) {
    const place = page.trail.findIndex((one) => one.query.query_id === query.query_id);
    if (place >= 0) page.trail.splice(place, 1);
    if (status !== "undone") page.trail.push({ query, status, class_name });
  }
  palette();
  document.addEventListener("keydown", pressed);
  document.addEventListener("keyup", (event) => event.key === "Shift" && mark(true));
  for (const name of ["keydown", "pointermove", "pointerdown"]) document.addEventListener(name, active, { passive: true });
  for (const button of document.querySelectorAll("[data-do]")) {
    button.addEventListener("click", () => enqueue(DEEDS[button.dataset.do]));
  }
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.sign(event.deltaY)); }, { passive: false });
  new ResizeObserver(redraw).observe(canvas);
  at("numbers").addEventListener("toggle", numbers);
  setInterval(numbers, 2 * POLL_EVERY);
  send();
  await lease();
}

start().catch((error) => {
  if (error instanceof Refused || error instanceof TypeError) trouble(error);
  else say(`This browser cannot keep answers (a private window?): ${error}`, true);
});

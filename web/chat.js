// The chat page: the conversation, and what the user does to it. The server is behind api.js, memory behind store.js,
// a message's looks behind message.js, the drawer behind settings.js.

import { fetchModels, streamChat } from "./api.js";
import { readImages } from "./images.js";
import { copy, MessageView, thumbnail } from "./message.js";
import { Rate } from "./rate.js";
import { bindSettings } from "./settings.js";
import { load, read, requestBody, save, write } from "./store.js";

const $ = (id) => document.getElementById(id);
const page = {
  model: $("model"), scroller: $("scroller"), welcome: $("welcome"), messages: $("messages"), error: $("error"),
  composer: $("composer"), input: $("input"), send: $("send"), stop: $("stop"), status: $("status"),
  settings: $("settings"), attach: $("attach"), images: $("images"), attached: $("attached"),
};
const state = load();
let models = []; // what the server offers
let images = []; // what goes with the next message
let running = null; // the AbortController of the answer that is being streamed

// ---- Messages

function addMessage(message) {
  const view = new MessageView(message, {
    edit: (text) => { editMessage(message, text); },
    retry: () => { retryFrom(message); },
    respond: (call, text) => { respond(message, call, text); },
  });
  page.messages.append(view.item);
  page.welcome.hidden = true;
  return view;
}

function redraw() {
  page.messages.replaceChildren();
  page.welcome.hidden = state.messages.length > 0;
  for (const message of state.messages) addMessage(message);
  page.scroller.scrollTop = page.scroller.scrollHeight;
}

/** Runs `change`, and stays at the bottom of the conversation if the reader was there. */
function following(change) {
  const { scroller } = page;
  const atEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 40;
  change();
  if (atEnd) scroller.scrollTop = scroller.scrollHeight;
}

/** Forgets `message` and all after it. */
function cut(message) {
  running?.abort();
  state.messages = state.messages.slice(0, state.messages.indexOf(message));
  redraw();
}

// ---- Asking

async function ask(text) {
  if (!(await ready())) {
    page.input.value = text;
    updateSend();
    return;
  }
  const message = { role: "user", content: text, ...(images.length ? { images } : {}) };
  setImages([]);
  state.messages.push(message);
  addMessage(message);
  await answer();
}

async function editMessage(message, text) {
  if (!(await ready())) return;
  cut(message);
  state.messages.push({ ...message, content: text });
  redraw();
  await answer();
}

async function retryFrom(message) {
  if (!(await ready())) return;
  cut(message);
  await answer();
}

/** Takes the user's result of a tool call; the model goes on when it has them all. */
async function respond(message, call, text) {
  call.answered = true;
  state.messages.push({ role: "tool", content: text, callId: call.id });
  redraw();
  save(state);
  if (message.calls.every(({ answered }) => answered) && (await ready())) await answer();
}

/** Whether a request can be made now; says why not. */
async function ready() {
  showError(null);
  if (models.length === 0 && !(await connect())) return false;
  if (!state.messages.at(-1)?.calls?.some(({ answered }) => !answered)) return true;
  showError("The model waits for the results of its tool calls: give them, or retry its answer.");
  return false;
}

/** Streams the model's next message. */
async function answer() {
  const message = { role: "assistant", content: "" };
  const rate = new Rate();
  const mine = new AbortController();
  let view = null;
  try {
    const body = requestBody(state);
    state.messages.push(message);
    view = addMessage(message);
    view.streaming = true;
    page.scroller.scrollTop = page.scroller.scrollHeight;
    save(state);
    setRunning(mine);
    await receive(body, mine.signal, message, view, rate);
  } catch (error) {
    if (error.name === "AbortError") rate.remark = "stopped";
    else showError(error.message);
  } finally {
    message.note = rate.text();
    finish(message, view, mine);
  }
}

async function receive(body, signal, message, view, rate) {
  let scheduled = false;
  const draw = () => {
    scheduled = false;
    message.note = rate.text();
    following(() => view.draw());
  };
  for await (const event of streamChat(body, state.settings.apiKey, signal)) {
    take(event, message, rate);
    if (!scheduled) scheduled = Boolean(requestAnimationFrame(draw));
  }
}

/** Adds one piece of the answer to its message. */
function take(event, message, rate) {
  if (event.text !== undefined) message.content += event.text;
  if (event.reasoning !== undefined) message.reasoning = (message.reasoning ?? "") + event.reasoning;
  if (event.call !== undefined) {
    const { index, id, name, arguments: more } = event.call;
    message.calls ??= [];
    message.calls[index] ??= { id, name, arguments: "" };
    message.calls[index].arguments += more;
  }
  if (event.text ?? event.reasoning ?? event.call) rate.count();
  if (event.usage) rate.settle(event.usage.completion_tokens);
  if (event.reason === "length") rate.remark = "cut off at the longest length";
}

function finish(message, view, mine) {
  if (message.content === "" && !message.reasoning && !message.calls) {
    state.messages = state.messages.filter((other) => other !== message);
    view?.item.remove();
  } else {
    following(() => { view.streaming = false; });
  }
  save(state);
  if (running !== mine) return; // another answer has begun meanwhile
  setRunning(null);
  if (!message.calls) page.input.focus();
}

function setRunning(controller) {
  running = controller;
  page.status.textContent = controller === null ? "" : "Answering…";
  page.send.hidden = controller !== null;
  page.stop.hidden = controller === null;
  updateSend();
}

// ---- Connection and errors

/** Asks which models there are, and keeps the user's choice if it is still among them. */
async function connect() {
  try {
    models = await fetchModels(state.settings.apiKey);
    if (models.length === 0) throw new Error("This server offers no model that can chat.");
  } catch (error) {
    models = [];
    showError(error.message);
  }
  const ids = models.map(({ id }) => id);
  if (models.length && !ids.includes(state.settings.model)) state.settings.model = ids[0];
  const shown = models.length ? ids : ["not connected"];
  page.model.replaceChildren(...shown.map((id) => new Option(id, id, false, id === state.settings.model)));
  page.model.disabled = models.length < 2;
  page.model.classList.toggle("offline", models.length === 0);
  showModel();
  return models.length > 0;
}

function showModel() {
  const chosen = models.find(({ id }) => id === state.settings.model);
  document.title = chosen ? `${chosen.id} · Cupola` : "Cupola";
  page.attach.hidden = !chosen?.takesImages;
  if (!chosen?.takesImages) setImages([]);
}

function showError(message) {
  page.error.hidden = message === null;
  page.error.textContent = message ?? "";
}

page.model.addEventListener("change", () => {
  state.settings.model = page.model.value;
  save(state);
  showModel();
});

// ---- Composer

function updateSend() {
  page.send.disabled = page.input.value.trim() === "";
  page.input.style.height = "auto";
  page.input.style.height = `${page.input.scrollHeight}px`;
}

function setImages(urls) {
  images = urls;
  page.attached.replaceChildren(...urls.map((url) => {
    const remove = document.createElement("button");
    remove.type = "button";
    remove.setAttribute("aria-label", "Remove the image");
    remove.append(thumbnail(url));
    remove.addEventListener("click", () => setImages(images.filter((other) => other !== url)));
    return remove;
  }));
}

async function addImages(files) {
  if (page.attach.hidden) return;
  const found = await readImages(files);
  setImages([...images, ...found]);
  if (files.length && found.length < files.length) showError("Only images that this browser can show are taken.");
}

page.composer.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = page.input.value.trim();
  if (text === "" || running !== null) return;
  page.input.value = "";
  updateSend();
  ask(text);
});

page.input.addEventListener("input", updateSend);
page.input.addEventListener("paste", (event) => addImages(event.clipboardData.files));
page.input.addEventListener("keydown", (event) => {
  if (event.key === "ArrowUp" && page.input.value === "" && running === null) {
    const last = [...page.messages.querySelectorAll(".message.user .edit")].at(-1);
    if (last) event.preventDefault();
    last?.click();
  }
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  page.composer.requestSubmit();
});
page.attach.addEventListener("click", () => page.images.click());
page.images.addEventListener("change", async () => {
  await addImages(page.images.files);
  page.images.value = "";
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  addImages(event.dataTransfer.files);
});
page.stop.addEventListener("click", () => running?.abort());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !page.settings.open) running?.abort();
});

$("examples").addEventListener("click", (event) => {
  if (event.target.matches("button") && running === null) ask(event.target.textContent);
});

page.messages.addEventListener("click", (event) => {
  if (event.target.dataset.copy === "code") {
    copy(event.target, event.target.closest(".code").querySelector("code").textContent);
  }
});

$("new-chat").addEventListener("click", () => {
  running?.abort();
  state.messages = [];
  save(state);
  showError(null);
  redraw();
  page.input.focus();
});

// ---- Settings, export, import

const applySettings = bindSettings(state, {
  changed: () => save(state),
  closed: () => {
    showError(null);
    connect();
  },
});

$("export").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([write(state)], { type: "application/json" }));
  link.download = `chat-${new Date().toISOString().slice(0, 16).replace(":", "-")}.json`;
  link.click();
  URL.revokeObjectURL(link.href);
});
$("import").addEventListener("click", () => $("import-file").click());
$("import-file").addEventListener("change", async () => {
  const [file] = $("import-file").files;
  $("import-file").value = "";
  if (!file) return;
  running?.abort();
  page.settings.close();
  try {
    Object.assign(state, read(await file.text(), state.settings));
    save(state);
    applySettings();
    redraw();
    await connect();
  } catch (error) {
    showError(error.message);
  }
});

redraw();
updateSend();
connect();

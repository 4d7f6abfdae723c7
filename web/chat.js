// The chat page: what the user sees and does. The server is behind api.js, memory behind store.js.

import { fetchModel, streamChat } from "./api.js";
import { renderMarkdown } from "./markdown.js";
import { DEFAULTS, load, save } from "./store.js";

const $ = (id) => document.getElementById(id);
const page = {
  model: $("model"), scroller: $("scroller"), welcome: $("welcome"), messages: $("messages"), error: $("error"),
  composer: $("composer"), input: $("input"), send: $("send"), stop: $("stop"), status: $("status"),
  settings: $("settings"), template: $("message-template"),
};
const state = load();
let modelName = null;
let running = null; // the AbortController of the answer that is being streamed

// ---- Messages

function addMessage(message) {
  const item = page.template.content.firstElementChild.cloneNode(true);
  item.classList.add(message.role);
  item.querySelector(".who").textContent = message.role === "user" ? "You" : "Answer";
  const view = {
    item,
    draw() {
      const body = item.querySelector(".body");
      if (message.role === "user") body.textContent = message.content;
      else renderMarkdown(body, message.content);
      item.querySelector(".rate").textContent = message.note ?? "";
    },
  };
  item.querySelector(".copy").addEventListener("click", (event) => copy(event.currentTarget, message.content));
  view.draw();
  page.messages.append(item);
  page.welcome.hidden = true;
  return view;
}

function redraw() {
  page.messages.replaceChildren();
  page.welcome.hidden = state.messages.length > 0;
  for (const message of state.messages) addMessage(message);
  page.scroller.scrollTop = page.scroller.scrollHeight;
}

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea"); // pages served without TLS have no clipboard object
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1200);
}

/** Runs `change`, and stays at the bottom of the conversation if the reader was there. */
function following(change) {
  const { scroller } = page;
  const atEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 40;
  change();
  if (atEnd) scroller.scrollTop = scroller.scrollHeight;
}

// ---- Asking

function requestBody() {
  const { system, temperature, maxTokens } = state.settings;
  const turns = state.messages.filter((message) => message.content !== "");
  const messages = turns.map(({ role, content }) => ({ role, content }));
  if (system.trim()) messages.unshift({ role: "system", content: system });
  return { model: modelName, messages, temperature, ...(maxTokens ? { max_tokens: maxTokens } : {}) };
}

async function ask(text) {
  showError(null);
  if (modelName === null && !(await connect())) {
    page.input.value = text;
    updateSend();
    return;
  }
  state.messages.push({ role: "user", content: text });
  addMessage(state.messages.at(-1));
  const body = requestBody();
  const answer = { role: "assistant", content: "" };
  state.messages.push(answer);
  const view = addMessage(answer);
  page.scroller.scrollTop = page.scroller.scrollHeight;
  save(state);
  setRunning(new AbortController());
  view.item.classList.add("streaming");
  const rate = new Rate();
  try {
    await receive(body, answer, view, rate);
  } catch (error) {
    if (error.name === "AbortError") rate.remark = "stopped";
    else showError(error.message);
  } finally {
    view.item.classList.remove("streaming");
    answer.note = rate.text();
    finish(answer, view);
  }
}

async function receive(body, answer, view, rate) {
  let scheduled = false;
  const draw = () => {
    scheduled = false;
    answer.note = rate.text();
    following(view.draw);
  };
  for await (const event of streamChat(body, state.settings.apiKey, running.signal)) {
    if (event.text !== undefined) {
      answer.content += event.text;
      rate.count();
    }
    if (event.usage) rate.settle(event.usage.completion_tokens);
    if (event.reason === "length") rate.remark = "cut off at the longest length";
    if (!scheduled) scheduled = Boolean(requestAnimationFrame(draw));
  }
}

function finish(answer, view) {
  if (answer.content === "") {
    state.messages = state.messages.filter((message) => message !== answer);
    view.item.remove();
  } else {
    following(view.draw);
  }
  save(state);
  setRunning(null);
  page.input.focus();
}

/** Tokens per second: pieces while they arrive, the server's own count at the end. */
class Rate {
  remark = "";
  #start = null;
  #end = null;
  #tokens = 0;

  count() {
    this.#end = performance.now();
    this.#start ??= this.#end;
    this.#tokens += 1;
  }

  settle(tokens) {
    this.#tokens = tokens;
  }

  text() {
    if (this.#tokens === 0) return "";
    const parts = [`${this.#tokens} token${this.#tokens === 1 ? "" : "s"}`];
    const seconds = (this.#end - this.#start) / 1000;
    if (this.#tokens > 1 && seconds > 0) parts.push(`${((this.#tokens - 1) / seconds).toFixed(1)} tokens/s`);
    if (this.remark) parts.push(this.remark);
    return parts.join(", ");
  }
}

function setRunning(controller) {
  running = controller;
  page.status.textContent = controller === null ? "" : "Answering…";
  page.send.hidden = controller !== null;
  page.stop.hidden = controller === null;
  updateSend();
}

// ---- Connection and errors

async function connect() {
  try {
    modelName = await fetchModel(state.settings.apiKey);
    page.model.textContent = modelName;
    document.title = `${modelName} · Cupola`;
  } catch (error) {
    modelName = null;
    page.model.textContent = "not connected";
    showError(error.message);
  }
  page.model.classList.toggle("offline", modelName === null);
  return modelName !== null;
}

function showError(message) {
  page.error.hidden = message === null;
  page.error.textContent = message ?? "";
}

// ---- Composer

function updateSend() {
  page.send.disabled = page.input.value.trim() === "";
  page.input.style.height = "auto";
  page.input.style.height = `${page.input.scrollHeight}px`;
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
page.input.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  page.composer.requestSubmit();
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

// ---- Settings

const fields = { system: $("system"), temperature: $("temperature"), maxTokens: $("max-tokens"), apiKey: $("api-key") };

function showSettings() {
  for (const [name, field] of Object.entries(fields)) field.value = state.settings[name] ?? "";
  $("temperature-value").textContent = Number(state.settings.temperature).toFixed(1);
}

page.settings.addEventListener("input", () => {
  const maxTokens = Number.parseInt(fields.maxTokens.value, 10);
  state.settings = {
    system: fields.system.value,
    temperature: Number(fields.temperature.value),
    maxTokens: maxTokens > 0 ? maxTokens : null,
    apiKey: fields.apiKey.value.trim(),
  };
  $("temperature-value").textContent = state.settings.temperature.toFixed(1);
  save(state);
});

$("open-settings").addEventListener("click", (event) => {
  showSettings();
  page.settings.showModal();
  event.currentTarget.setAttribute("aria-expanded", "true");
});
page.settings.addEventListener("close", () => {
  $("open-settings").setAttribute("aria-expanded", "false");
  showError(null);
  connect();
});
page.settings.addEventListener("click", (event) => {
  if (event.target === page.settings) page.settings.close(); // a click on the backdrop
});
$("reset").addEventListener("click", () => {
  state.settings = { ...DEFAULTS };
  save(state);
  showSettings();
});

redraw();
updateSend();
connect();

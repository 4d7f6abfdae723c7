// One message on the page: its text, images, reasoning and tool calls, and the buttons below it.
//
// What the buttons do is the conversation's business: it gives {edit(text), retry(), respond(call, text)} as `actions`.

import { renderMarkdown } from "./markdown.js";

const template = document.getElementById("message-template");
const callTemplate = document.getElementById("call-template");
const NAMES = { user: "You", assistant: "Answer", tool: "Tool" };

export class MessageView {
  #message;
  #actions;
  #parts = {};

  constructor(message, actions) {
    this.#message = message;
    this.#actions = actions;
    this.item = template.content.firstElementChild.cloneNode(true);
    this.item.classList.add(message.role);
    for (const name of ["who", "body", "images", "reasoning", "calls", "copy", "edit", "retry", "rate"]) {
      this.#parts[name] = this.item.querySelector(`.${name}`);
    }
    this.#parts.who.textContent = NAMES[message.role];
    this.#parts.copy.addEventListener("click", (event) => copy(event.currentTarget, message.content));
    this.#parts.edit.hidden = message.role !== "user";
    this.#parts.edit.addEventListener("click", () => this.edit());
    this.#parts.retry.hidden = message.role !== "assistant";
    this.#parts.retry.addEventListener("click", () => actions.retry());
    this.draw();
  }

  /** Shows what the message holds now. */
  draw() {
    const { role, content, reasoning, calls, images, note } = this.#message;
    if (role === "assistant") renderMarkdown(this.#parts.body, content);
    else this.#parts.body.textContent = content;
    this.#parts.reasoning.hidden = !reasoning;
    this.#parts.reasoning.querySelector(".thought").textContent = reasoning ?? "";
    this.#parts.images.replaceChildren(...(images ?? []).map(thumbnail));
    this.#parts.calls.replaceChildren(...(calls ?? []).map((call) => this.#call(call)));
    this.#parts.rate.textContent = note ?? "";
  }

  /** Marks the message as one that still grows, or as complete. */
  set streaming(is) {
    this.item.classList.toggle("streaming", is);
    if (!is) this.draw(); // the calls' forms are there for a complete answer only
  }

  /** Puts the text into a field; Enter asks again with what it holds then, Escape leaves all as it was. */
  edit() {
    const field = document.createElement("textarea");
    field.value = this.#message.content;
    field.rows = Math.min(12, field.value.split("\n").length + 1);
    field.setAttribute("aria-label", "Edit the message; Enter asks again, Escape cancels");
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        this.draw();
        this.#parts.edit.focus();
      } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        if (field.value.trim()) this.#actions.edit(field.value.trim());
      }
    });
    this.#parts.body.replaceChildren(field);
    field.focus();
  }

  #call(call) {
    const card = callTemplate.content.firstElementChild.cloneNode(true);
    card.querySelector(".name").textContent = call.name;
    card.querySelector("code").textContent = indented(call.arguments);
    const form = card.querySelector("form");
    form.hidden = this.item.classList.contains("streaming") || Boolean(call.answered);
    form.querySelector("textarea").setAttribute("aria-label", `Result of ${call.name}`);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#actions.respond(call, form.querySelector("textarea").value);
    });
    return card;
  }
}

/** Puts a text on the clipboard, and says so on the button. */
export async function copy(button, text) {
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

/** An image of a data URL. */
export function thumbnail(url) {
  const image = document.createElement("img");
  image.src = url;
  image.alt = "attached image";
  return image;
}

/** JSON with line breaks; text that is not (yet) JSON as it is. */
function indented(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

// What the page remembers in this browser, the file that it exports, and what both become for the server.
//
// A message is {role, content} and, where it has them, {images, reasoning, calls, callId, note}:
// `calls` are the tool calls of an answer, {id, name, arguments}; `callId` says which of them a `tool` message answers.

const KEY = "cupola.chat.v1";
const FILE = "cupola chat";
const ROLES = ["user", "assistant", "tool"];

export const DEFAULTS = Object.freeze({
  model: null, system: "", temperature: 0.7, topP: null, maxTokens: null, seed: null, effort: "", tools: "",
  toolChoice: "auto", apiKey: "", theme: "",
});

/** {settings, messages}. Anything unreadable counts as empty. */
export function load() {
  try {
    const { settings, messages } = JSON.parse(localStorage.getItem(KEY)) ?? {};
    return { settings: { ...DEFAULTS, ...settings }, messages: Array.isArray(messages) ? messages : [] };
  } catch {
    return { settings: { ...DEFAULTS }, messages: [] };
  }
}

/** Keeps the state; a browser that forbids or has no room for it still chats. */
export function save(state) {
  try {
    localStorage.setItem(KEY, JSON.stringify(state));
  } catch (error) {
    console.warn("the conversation is not kept:", error);
  }
}

/** The text of a file that `read` takes: all but the API key, which is nobody else's business. */
export function write({ settings, messages }) {
  const { apiKey: _, ...shared } = settings;
  return JSON.stringify({ file: FILE, version: 1, settings: shared, messages }, null, 1);
}

/** The state that `write` wrote; keeps this browser's API key. Throws an Error with a sentence for the user. */
export function read(text, { apiKey }) {
  let found;
  try {
    found = JSON.parse(text);
  } catch {
    throw new Error("This file is no conversation: it is not JSON.");
  }
  const fits = found?.file === FILE && found.version === 1 && Array.isArray(found.messages);
  if (!fits || !found.messages.every(isMessage)) throw new Error("This file is no conversation of this page.");
  const known = Object.entries(found.settings ?? {}).filter(([name]) => name in DEFAULTS);
  return { settings: { ...DEFAULTS, ...Object.fromEntries(known), apiKey }, messages: found.messages };
}

function isMessage(message) {
  return ROLES.includes(message?.role) && typeof message.content === "string";
}

/** The body of a request for the next answer. Throws an Error when the settings' tools are no list. */
export function requestBody({ settings, messages }) {
  const { system, effort, temperature, topP, maxTokens, seed } = settings;
  const body = { model: settings.model, messages: messages.map(wireMessage), temperature };
  if (system.trim()) body.messages.unshift({ role: "system", content: system });
  if (topP !== null) body.top_p = topP;
  if (maxTokens !== null) body.max_tokens = maxTokens;
  if (seed !== null) body.seed = seed;
  if (effort) body.reasoning_effort = effort;
  const tools = parseTools(settings.tools);
  return tools.length ? { ...body, tools, tool_choice: settings.toolChoice } : body;
}

/** The tools of a text that holds a JSON list of them; none for an empty text. Throws an Error for any other. */
export function parseTools(text) {
  if (!text.trim()) return [];
  let tools = null;
  try {
    tools = JSON.parse(text);
  } catch {
    // told below, together with what is JSON and no list
  }
  if (!Array.isArray(tools)) throw new Error("The tools in the settings are not a JSON list.");
  return tools.map((tool) => (tool?.function ? tool : { type: "function", function: tool }));
}

function wireMessage({ role, content, images, calls, callId }) {
  if (role === "tool") return { role, content, tool_call_id: callId };
  if (calls?.length) {
    const called = calls.map(({ id, name, arguments: text }) => ({
      id, type: "function", function: { name, arguments: text },
    }));
    return { role, content, tool_calls: called };
  }
  if (!images?.length) return { role, content };
  const parts = images.map((url) => ({ type: "image_url", image_url: { url } }));
  return { role, content: [...parts, { type: "text", text: content }] };
}

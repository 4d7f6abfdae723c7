// What the page remembers in this browser: the conversation and the settings.

const KEY = "cupola.chat.v1";

export const DEFAULTS = Object.freeze({ system: "", temperature: 0.7, maxTokens: null, apiKey: "" });

/** {settings, messages}; messages are {role, content, note}. Anything unreadable counts as empty. */
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

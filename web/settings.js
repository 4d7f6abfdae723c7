// The drawer of settings: fields on the page on one side, the state's settings on the other.

import { DEFAULTS, parseTools } from "./store.js";

const $ = (id) => document.getElementById(id);
const drawer = $("settings");

const text = { show: (field, value) => { field.value = value; }, take: (field) => field.value };
const key = { ...text, take: (field) => field.value.trim() };
const real = { ...text, take: (field) => Number(field.value) };
const optional = { // a number, or nothing
  show: (field, value) => { field.value = value ?? ""; },
  take: (field) => (field.value === "" || !field.checkValidity() ? null : Number(field.value)),
};

const FIELDS = {
  system: [$("system"), text],
  temperature: [$("temperature"), real],
  topP: [$("top-p"), optional],
  maxTokens: [$("max-tokens"), optional],
  seed: [$("seed"), optional],
  effort: [$("effort"), text],
  tools: [$("tools"), text],
  toolChoice: [$("tool-choice"), text],
  theme: [$("theme"), text],
  apiKey: [$("api-key"), key],
};

/**
 * Ties the drawer to `state`. `changed` is called after each change, `closed` when the drawer is gone.
 * Gives a function that applies settings which came from elsewhere.
 */
export function bindSettings(state, { changed, closed }) {
  const show = () => {
    for (const [name, [field, form]] of Object.entries(FIELDS)) form.show(field, state.settings[name]);
    remark(state.settings);
  };
  const take = (event) => {
    const entry = Object.entries(FIELDS).find(([, [field]]) => field === event.target);
    if (!entry) return;
    const [name, [field, form]] = entry;
    state.settings[name] = form.take(field);
    remark(state.settings);
    changed();
  };
  drawer.addEventListener("input", take);
  drawer.addEventListener("change", take); // not every way to choose an option is also an input
  $("open-settings").addEventListener("click", (event) => {
    show();
    drawer.showModal();
    event.currentTarget.setAttribute("aria-expanded", "true");
  });
  drawer.addEventListener("close", () => {
    $("open-settings").setAttribute("aria-expanded", "false");
    closed();
  });
  drawer.addEventListener("click", (event) => {
    if (event.target === drawer) drawer.close(); // a click on the backdrop
  });
  $("reset").addEventListener("click", () => {
    Object.assign(state.settings, DEFAULTS, { model: state.settings.model });
    changed();
    show();
  });
  remark(state.settings);
  return () => remark(state.settings);
}

/** What follows at once from the settings: the scheme, the shown temperature, whether the tools can be read. */
function remark(settings) {
  document.documentElement.style.colorScheme = settings.theme || "light dark";
  $("temperature-value").textContent = Number(settings.temperature).toFixed(1);
  let complaint = "";
  try {
    parseTools(settings.tools);
  } catch (error) {
    complaint = error.message;
  }
  $("tools").setCustomValidity(complaint);
  $("tools-complaint").textContent = complaint;
}

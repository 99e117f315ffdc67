// The moving parts of the pages. Texts come from data attributes (translated by the server); nothing here writes markup from data.
import htmx from "htmx.org/dist/htmx.esm.js";
import { webauthn } from "./webauthn.js";

htmx.config.allowEval = false;
htmx.config.includeIndicatorStyles = false;
htmx.config.selfRequestsOnly = true;
htmx.config.historyCacheSize = 0;
htmx.config.refreshOnHistoryMiss = true;
window.htmx = htmx;

const root = document.documentElement;
const year = 31536000;

function remember(name, value) {
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `${name}=${encodeURIComponent(value)}; Path=/; Max-Age=${year}; SameSite=Lax${secure}`;
}

function theme(choice) {
  root.dataset.theme = choice;
  remember("theme", choice);
  for (const button of document.querySelectorAll("[data-theme-choice]")) {
    button.setAttribute("aria-pressed", String(button.dataset.themeChoice === choice));
  }
}

async function copy(button) {
  const from = button.dataset.copyFrom ? document.getElementById(button.dataset.copyFrom) : button.closest("[data-copy]");
  const text = button.dataset.copyText ?? from.dataset.copy ?? from.textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const range = document.createRange();
    range.selectNodeContents(from.querySelector("code") ?? from);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    return;
  }
  const label = button.getAttribute("aria-label");
  button.classList.add("copied");
  if (button.dataset.copied) button.setAttribute("aria-label", button.dataset.copied);
  setTimeout(() => {
    button.classList.remove("copied");
    if (label) button.setAttribute("aria-label", label);
  }, 1600);
}

function open(id) {
  const dialog = document.getElementById(id);
  if (dialog && !dialog.open) dialog.showModal();
}

document.addEventListener("click", (event) => {
  const target = event.target instanceof Element ? event.target : null;
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(target)) menu.open = false;
  const button = target?.closest("[data-theme-choice], [data-copy-button], [data-dialog], [data-close], [data-dismiss], [data-reveal], [data-print]");
  if (!button) {
    if (target instanceof HTMLDialogElement) target.close();
    return;
  }
  const data = button.dataset;
  if (data.themeChoice) theme(data.themeChoice);
  else if ("copyButton" in data) copy(button);
  else if (data.dialog) open(data.dialog);
  else if ("close" in data) button.closest("dialog")?.close();
  else if ("dismiss" in data) button.closest("[data-dismissable]")?.remove();
  else if ("print" in data) print();
  else if (data.reveal) {
    const field = document.getElementById(data.reveal);
    const shown = field.type === "text";
    field.type = shown ? "password" : "text";
    button.setAttribute("aria-pressed", String(!shown));
  }
});

const goes = new Map();
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    const menu = document.querySelector("details.menu[open]");
    if (menu) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, [contenteditable], dialog[open]")) return;
  if (event.key === "/") {
    const search = document.querySelector("[data-search]");
    if (search) {
      event.preventDefault();
      search.focus();
      search.select();
    }
  } else if (event.key === "?") open("keyboard-help");
  else if (goes.get("armed")) {
    goes.delete("armed");
    document.querySelector(`[data-go="${CSS.escape(event.key)}"]`)?.click();
  } else if (event.key === "g") {
    goes.set("armed", true);
    setTimeout(() => goes.delete("armed"), 1200);
  }
});

document.addEventListener("change", (event) => {
  if (event.target.matches("[data-submit-on-change]")) event.target.form.requestSubmit();
  const shows = event.target.closest("[data-shows]");
  if (shows) for (const part of document.querySelectorAll("[data-shown-for]")) part.hidden = !part.dataset.shownFor.split(" ").includes(event.target.value);
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.sent) event.preventDefault();
  else if (form.method === "post" && !form.hasAttribute("hx-post")) {
    form.dataset.sent = "yes";
    setTimeout(() => delete form.dataset.sent, 4000);
  }
});

function prepare(part) {
  for (const toast of part.querySelectorAll("[data-fades]")) setTimeout(() => toast.remove(), 7000);
  for (const field of part.querySelectorAll("[data-time-zone-guess]")) if (!field.value) field.value = Intl.DateTimeFormat().resolvedOptions().timeZone;
  for (const dialog of part.querySelectorAll("dialog[data-open-now]")) dialog.showModal();
}

addEventListener("pageshow", () => { for (const form of document.forms) delete form.dataset.sent; });
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
if (zone && !document.cookie.includes("zone=")) remember("zone", zone);
document.addEventListener("htmx:afterSwap", (event) => prepare(event.detail.elt));
document.addEventListener("DOMContentLoaded", () => { prepare(document); webauthn(document); });

// A message's page looks again while it waits, but not while somebody reads what they unfolded.
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.target.id === "message" && document.querySelector("#message details[open]")) event.detail.shouldSwap = false;
});

// The live tail of the message log: each look asks for what came after the first row, and how the waiting rows stand.
document.addEventListener("htmx:configRequest", (event) => {
  if (!("tail" in event.target.dataset)) return;
  const parameters = event.detail.parameters;
  const rows = [...document.querySelectorAll("#rows [data-row]")];
  parameters.set("after", rows[0]?.dataset.row ?? "");
  for (const row of rows.slice(0, 100)) if ("waits" in row.dataset) parameters.append("waiting", row.dataset.row);
});
document.addEventListener("htmx:beforeRequest", (event) => {
  if (!("tail" in event.target.dataset)) return;
  const button = document.querySelector("[data-tail-switch]");
  if (document.hidden || button?.getAttribute("aria-pressed") === "false") event.preventDefault();
});
document.addEventListener("click", (event) => {
  const button = event.target instanceof Element ? event.target.closest("[data-tail-switch]") : null;
  if (button) button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
});

// What changes something: asked once more, sent with the token, and told.

import { at, h, put } from "./dom.js";
import { send } from "./app.js";

let isAllowed = false;

/** Whether the server takes changes. */
export const mayChange = () => isAllowed;

export function allowChanges(allowed) {
  isAllowed = allowed === true;
}

let answer = null;

/** Asks whether that is meant; `true` if so. */
function isMeant(question, facts, verb) {
  put(at("sure-question"), question);
  put(at("sure-facts"), facts.map((fact) => h("p", {}, fact)));
  put(at("sure-yes"), verb);
  at("sure").showModal();
  at("sure-no").focus();
  return new Promise((resolve) => {
    answer = resolve;
  });
}

at("sure").addEventListener("close", () => {
  answer?.(at("sure").returnValue === "yes");
  answer = null;
  at("sure").returnValue = "";
});
at("sure-no").addEventListener("click", () => at("sure").close("no"));
at("sure-yes").addEventListener("click", () => at("sure").close("yes"));

/** A button that changes something once it is confirmed. `told` makes words of the answer; they, or the error, stand in `place`. */
export function acts(label, { key, question, facts = [], verb, path, body, place, told, after }) {
  const press = async (event) => {
    const button = event.currentTarget;
    if (!(await isMeant(question, facts, verb))) return;
    button.disabled = true;
    put(place(), h("p", {}, "Asking…"));
    try {
      const done = await send(path, body);
      put(place(), h("p", { class: "done" }, told(done)));
      after?.();
    } catch (error) {
      put(place(), h("p", { class: "wrong" }, error.message));
    }
    button.disabled = false;
    place().tabIndex = -1;
    place().focus();
  };
  return h("button", { type: "button", class: "acts", "data-key": key, on: { click: press } }, label);
}

/** Puts other children into an element that may have such buttons: what is being pressed stays, and so does the focus. */
export function putAround(place, ...children) {
  if (at("sure").open || place.querySelector("button:active, button:disabled")) return;
  const key = place.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  put(place, ...children);
  if (key !== undefined) [...place.querySelectorAll("button")].find((it) => it.dataset.key === key)?.focus();
}

/** Light and dark: as the system says, until a click says otherwise; remembered. */

import { isText, recall, remember } from "./store.ts";

const dark = matchMedia("(prefers-color-scheme: dark)");

/** Puts the theme on that was chosen last, and calls back whenever another one is on. */
export function keepTheme(button: HTMLElement, changed: () => void): void {
  let chosen = recall("theme", "system", isText);
  const isDark = (): boolean => (chosen === "system" ? dark.matches : chosen === "dark");
  const show = (): void => {
    if (chosen === "system") delete document.documentElement.dataset["theme"];
    else document.documentElement.dataset["theme"] = chosen;
    button.setAttribute("aria-label", isDark() ? "Light theme" : "Dark theme");
    button.title = isDark() ? "Light theme" : "Dark theme";
  };
  button.addEventListener("click", () => {
    const next = isDark() ? "light" : "dark";
    // What the system says anyway needs no choice, and follows it from then on.
    chosen = (next === "dark") === dark.matches ? "system" : next;
    remember("theme", chosen);
    show();
    changed();
  });
  dark.addEventListener("change", () => {
    show();
    changed();
  });
  show();
}

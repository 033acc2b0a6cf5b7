/** The light or dark theme: the system's, or the user's choice, which is stored. */

import { isText, recall, remember } from "./store.ts";

const dark = matchMedia("(prefers-color-scheme: dark)");

/** Applies the stored theme, and calls back after each change. */
export function initTheme(button: HTMLElement, changed: () => void): void {
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
    // A choice that equals the system's theme is stored as following the system.
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

import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// As Vite's template has it: the client needs no setting.
export default defineConfig({ plugins: [react()] });

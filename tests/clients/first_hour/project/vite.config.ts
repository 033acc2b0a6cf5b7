import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// What the client's README says of Vite.
export default defineConfig({ plugins: [react()], optimizeDeps: { exclude: ["tickcast"] } });

import { AllCommunityModule, createGrid, ModuleRegistry } from "ag-grid-community";
import { feedGrid, getRowId, type GridRow } from "tickcast/adapters/ag-grid";
import { start, view } from "./common";

ModuleRegistry.registerModules([AllCommunityModule]);
const api = createGrid<GridRow>(view, {
  getRowId,
  rowData: [],
  columnDefs: [
    { field: "symbol", sort: "asc" },
    { field: "bid", valueFormatter: ({ data }) => data?.text.bid ?? "", enableCellChangeFlash: true },
    { field: "ask", valueFormatter: ({ data }) => data?.text.ask ?? "", enableCellChangeFlash: true },
    { field: "last", valueFormatter: ({ data }) => data?.text.last ?? "" },
    { field: "volume" },
    { field: "state" },
  ],
});
feedGrid(start(), api, { symbols: "*" });

/** The one file that is library and worker, for script tags. */

import { serve } from "./spawn";

export * from "./index";

serve();

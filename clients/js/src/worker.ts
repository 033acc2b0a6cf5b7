import { serve } from "./spawn";

serve();

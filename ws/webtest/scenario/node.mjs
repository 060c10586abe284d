// node node.mjs <scenario> <base URL>
import { WebSocket } from "ws";
import { run } from "./run.mjs";

await run(process.argv[2], process.argv[3], WebSocket);
process.exit(0);

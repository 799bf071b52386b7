// node node_chat.mjs FOLDER_OF_NODE_MODULES BASE_URL
import { readFileSync } from "node:fs";
import { chat } from "./chat.mjs";

const [folder, url] = process.argv.slice(2);
const { default: OpenAI } = await import(`${folder}/node_modules/openai/index.mjs`);
await chat(OpenAI, url);
const { version } = JSON.parse(readFileSync(`${folder}/node_modules/openai/package.json`));
console.log(`openai ${version} in node ${process.version}`);
